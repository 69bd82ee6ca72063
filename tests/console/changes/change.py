"""How a change that the console offers is made: through the API, through the admin, through its other pages.

A new route is one entry of the table that is named as its door (``api.py``, ``admin.py``, ``pages.py``; what changes
nothing is in ``looks.py``): ``"METHOD /address/{pk}/"`` -> the object it acts on, and what is sent. Tests walk these
tables; a change that is in none fails ``test_every_change_leaves_one_event.py``.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from django.test import Client

from llmops.prompts.files import pack
from tests.console.browser_forms import form_of

World = SimpleNamespace
#: What several doors are sent: how long a model's answers are, and a folder of a prompt as the API takes it.
TOKENS = {"context_window": 8000, "max_output_tokens": 500, "default_max_output_tokens": 100}
PROMPT_FILES = base64.b64encode(pack({"brought": {"task.md": "Say hello."}})).decode()


@dataclass(frozen=True)
class Change:
    #: from the world to the object's name in the address; None where the address names none
    target: Callable[[World], Any] | None = None
    #: the API's body, or what is typed into the admin's form
    send: dict[str, Any] | Callable[[World], dict[str, Any]] = field(default_factory=dict)
    #: the audit event's action
    action: str = ""

    def sent(self, world: World) -> dict[str, Any]:
        return self.send(world) if callable(self.send) else self.send


def pk(name: str) -> Callable[[World], Any]:
    return lambda world: getattr(world, name).pk


def slug(name: str) -> Callable[[World], Any]:
    return lambda world: getattr(world, name).slug


def address(key: str, change: Change, world: World) -> str:
    route = key.split()[1]
    if "{" not in route:
        return route
    assert change.target is not None, f"{key}: the table names no object"
    start, end = route.index("{"), route.index("}")
    return f"{route[:start]}{change.target(world)}{route[end + 1 :]}"


def call_api(client: Client, key: str, change: Change, world: World) -> Any:
    method = key.split()[0].lower()
    return getattr(client, method)(
        address(key, change, world), change.sent(world), content_type="application/json"
    )


def fill_form(client: Client, key: str, change: Change, world: World) -> dict[str, Any]:
    """What a browser sends after ``change`` was typed into the page that ``client`` is shown."""
    page = client.get(address(key, change, world))
    assert page.status_code == 200, (key, page.status_code, page.content[:300])
    return {**form_of(page.content.decode()), **change.sent(world)}
