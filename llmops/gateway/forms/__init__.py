"""Multipart bodies, as they come in and go on."""
