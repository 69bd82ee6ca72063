"""Calls without model work, from first byte to last."""
