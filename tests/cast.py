"""The people and keys that tests play with.

Alice administers the organisation. Bob operates the project ``support``, Carla does its finance, Dan audits it, Rita
reviews in it. Charlie operates another project, ``search``, and is a stranger to ``support``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import connections
from django.test import Client

from llmops.access import services
from llmops.access.models import Membership, Project, ServiceKey
from llmops.access.rules import SCOPES
from llmops.audit.models import Event
from llmops.base.requests import user_actor
from llmops.core.actors import Actor, command_actor
from tests.kept import kept

COMMAND = command_actor("test")
#: What the form of a project shows and sends beside what a test types.
AS_SHOWN = {"keep_texts_percent": "0", "keep_texts_days": "7"}
PASSWORD = "correct horse battery staple"
ROLES = {
    "alice": ("admin", None),
    "bob": ("operator", "support"),
    "carla": ("finance", "support"),
    "dan": ("auditor", "support"),
    "rita": ("reviewer", "support"),
    "charlie": ("operator", "search"),
}


def person(name: str, *roles: tuple[str, Project | None], **fields: Any) -> Any:
    """An account that nobody can sign in with by password (hashing one takes long)."""
    user = get_user_model()(username=name, is_staff=True, **fields)
    user.set_unusable_password()
    user.save()
    for role, project in roles:
        Membership.objects.create(user=user, project=project, role=role)
    return user


def make_cast() -> SimpleNamespace:
    support = services.create_project(COMMAND, slug="support", name="Support assistant")
    search = services.create_project(COMMAND, slug="search", name="Product search")
    places = {None: None, "support": support, "search": search}
    people = {name: person(name, (role, places[place])) for name, (role, place) in ROLES.items()}
    return SimpleNamespace(support=support, search=search, root=person("root", is_superuser=True), **people)


def issue(
    project: Project, *scopes: str, actor: Actor = COMMAND, name: str = "", **fields: Any
) -> services.IssuedKey:
    return services.create_service_key(
        actor,
        project=project,
        name=name or f"key {ServiceKey.objects.count() + 1}",
        scopes=scopes or ("inference",),
        **fields,
    )


def every_scope(project: Project) -> services.IssuedKey:
    return issue(project, *SCOPES)


def acting(user: Any) -> Actor:
    return user_actor(user)


def signed_in(user: Any, **defaults: Any) -> Client:
    client = Client(**defaults)
    client.force_login(user)
    return client


def bearer(secret: str) -> Client:
    return Client(headers={"authorization": f"Bearer {secret}"})


def last_sequence() -> int:
    return Event.objects.order_by("-sequence").values_list("sequence", flat=True).first() or 0


@contextmanager
def one_event(action: str | None = None) -> Iterator[SimpleNamespace]:
    """Asserts that the block leaves exactly one audit event, which is then in ``.event``."""
    before, found = last_sequence(), SimpleNamespace(event=None)
    yield found
    events = list(Event.objects.filter(sequence__gt=before).order_by("sequence"))
    assert len(events) == 1, [event.action for event in events]
    found.event = events[0]
    if action is not None:
        assert found.event.action == action


@contextmanager
def no_event() -> Iterator[None]:
    before = last_sequence()
    yield
    assert last_sequence() == before, list(Event.objects.filter(sequence__gt=before).values_list("action"))


def in_threads(*work: Callable[[], Any]) -> list[Any]:
    """Run each callable in a thread of its own with its own connection; their results or exceptions, in order."""
    from threading import Barrier, Thread

    start = Barrier(len(work))
    results: list[Any] = [None] * len(work)

    def run(index: int) -> None:
        start.wait(timeout=120)
        try:
            results[index] = work[index]()
        except Exception as raised:
            results[index] = raised
        finally:
            connections.close_all()

    threads = [Thread(target=run, args=(index,)) for index in range(len(work))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=300)
        assert not thread.is_alive()
    return results


@pytest.fixture(autouse=True)
def quick_passwords(settings: Any) -> None:
    """Hashing a password takes half a second on purpose; what is tested here is what happens around it."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@kept
def cast() -> SimpleNamespace:
    return make_cast()
