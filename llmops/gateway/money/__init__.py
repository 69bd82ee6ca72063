"""The leased money of a process."""
