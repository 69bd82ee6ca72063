"""What a session of PostgreSQL is opened with, so that none keeps locks, or a query, for ever."""

from __future__ import annotations


def session_options(given: str, *, idle_s: float, statement_s: float) -> str:
    """libpq's ``options``. Whoever is within a transaction and asks nothing for ``idle_s`` seconds loses connection and locks; a
    statement, its waiting for locks included, may take ``statement_s``. 0: as the server has it. What ``given`` says counts more."""
    bounds = {"idle_in_transaction_session_timeout": idle_s, "statement_timeout": statement_s}
    ours = [f"-c {name}={round(seconds * 1000)}" for name, seconds in bounds.items() if seconds > 0]
    return " ".join([*ours, given]).strip()
