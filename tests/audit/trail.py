"""A trail to look at, what a page of it shows, and the database as its owner has it."""

from __future__ import annotations

import re
from contextlib import contextmanager

from django.db import connection, transaction

from llmops.audit.services import record
from llmops.base.append_only import statements
from tests.cast import COMMAND


def write(number=1, actor=COMMAND, **known):
    found = []
    for at in range(number):
        told = {
            "action": "thing.changed",
            "object_type": "access.project",
            "object_id": f"o{at}",
            "object_name": f"thing {at}",
            **known,
        }
        with transaction.atomic():
            found.append(record(actor, **told))
    return found


def numbers(page):
    return [int(one) for one in re.findall(r'<tr data-key="(\d+)">', page.content.decode())]


@contextmanager
def without_triggers():
    """As somebody would who owns the database."""
    with connection.cursor() as cursor:
        suffix = " ON audit_event" if connection.vendor == "postgresql" else ""
        for kind in ("update", "delete", "truncate"):
            cursor.execute(f"DROP TRIGGER IF EXISTS audit_event_no_{kind}{suffix}")
        yield cursor
        for statement in statements(connection.vendor, "audit_event"):
            cursor.execute(statement)
