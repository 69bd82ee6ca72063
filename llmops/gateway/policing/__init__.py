"""Policies before and after a call, on streams, and on what a provider keeps."""
