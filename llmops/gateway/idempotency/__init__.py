"""Requests that are sent again under one Idempotency-Key: answered once, paid for once."""
