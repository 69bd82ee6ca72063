"""What ``bootstrap`` makes, and whether it is all there already: asked at each start, so it is a few small reads."""

from __future__ import annotations

import json
import os
from pathlib import Path

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import connection

from llmops.access.models import ServiceKey
from llmops.providers.models import Provider

#: The member of ``first-run.json`` that says so.
EMPTY = "empty"
#: What ``history_file`` says while the demo's history is still to be booked.
WANTED = "wanted\n"


def is_prepared() -> bool:
    """Whether ``bootstrap`` would find nothing to do. The database must be migrated."""
    try:
        return not (
            lacks_configuration()
            or misplaced_simulator() is not None
            or lacks_people()
            or lacks_keys()
            or wants_history()
        )
    finally:
        connection.close()


def lacks_configuration() -> bool:
    return not begins_empty() and not Provider.objects.exists()


def lacks_people() -> bool:
    return not get_user_model().objects.exists()


def lacks_keys() -> bool:
    return not begins_empty() and not ServiceKey.objects.exists()


def first_run_file() -> Path:
    return settings.DATA_DIR / "first-run.json"


def begins_empty() -> bool:
    """Whether this installation was begun with nothing in it, so that nothing is to be added at a later start either."""
    path = first_run_file()
    return path.exists() and bool(json.loads(path.read_text()).get(EMPTY))


def simulator_url() -> str:
    return os.environ.get("CONSOLE_SIMULATOR_URL", "http://127.0.0.1:8001/v1")


def misplaced_simulator() -> Provider | None:
    """The provider that stands for the simulator, if the simulator listens elsewhere by now."""
    standing = Provider.objects.filter(slug="simulator", kind="simulator", archived_at=None).first()
    return standing if standing is not None and standing.base_url != simulator_url() else None


def history_file() -> Path:
    return settings.DATA_DIR / "demo-history"


def wants_history() -> bool:
    path = history_file()
    return path.exists() and path.read_text() == WANTED
