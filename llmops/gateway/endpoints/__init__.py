"""One file for each endpoint: how its body is read and bounded, how it is sent on, where its usage stands."""
