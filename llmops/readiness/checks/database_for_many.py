"""The database serves more than one host."""

from __future__ import annotations

from django.db import connection

from llmops.readiness.finding import MONITORING, Check, Finding, lacking, met


def look() -> Finding:
    vendor = connection.vendor
    return met("PostgreSQL.") if vendor == "postgresql" else lacking("SQLite: one host, one writer.")


CHECK = Check(
    "database-for-many",
    MONITORING,
    "The database serves more than one host",
    fix="Set DATABASE_URL to PostgreSQL.",
    link="DATABASE_URL",
    look=look,
)
