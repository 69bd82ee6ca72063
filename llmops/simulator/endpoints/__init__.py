"""One file an endpoint: decode, decide, answer."""
