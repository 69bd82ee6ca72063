"""Who may do what: every address, asked as each of the cast, does what ``permissions/table.py`` says of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from django.template import Context, Template
from django.test.signals import template_rendered
from django.utils.safestring import SafeString

from tests.console import surface
from tests.console.changes.admin import ADMIN, ASKS_A_PROVIDER
from tests.console.changes.api import API
from tests.console.changes.change import Change, address, call_api, fill_form
from tests.console.changes.looks import LOOKS, REPORTS
from tests.console.changes.pages import PAGES
from tests.console.permissions.table import API_ROWS, PAGE_ROWS
from tests.console.test_every_change_leaves_one_event import accepted, stand_in
from tests.console.world import ACTORS, undone

pytestmark = pytest.mark.django_db
PEOPLE = ACTORS[:7]

#: A page is rendered for the first of each kind: nobody, who may do everything, who may something in a project.
_KINDS = {"nobody": "nobody", "alice": "the whole"}

#: Not in the table: the same for everybody.
SAME_FOR_ALL = {"/admin/login/", "/admin/logout/", "/api/", "/api/v1/", "/api/{rest}"}


def area_of(key: str) -> str:
    """What of the admin an address is about, such as ``providers/route``; empty outside of it and on its first page."""
    parts = key.split()[1].split("/")
    return "/".join(parts[2:4]).strip("/") if parts[1] == "admin" else ""


AREAS = sorted(set(map(area_of, PAGE_ROWS)))


def code(answer: Any) -> str:
    if answer.status_code == 302 and answer["Location"].startswith("/admin/login/"):
        return "L"
    if answer.status_code in (200, 201, 202, 204, 302):
        return "+" if accepted(answer) else "f"
    return {400: "b", 401: "1", 403: "-", 404: "0"}.get(answer.status_code, str(answer.status_code))


def looked_at(route: str, world: SimpleNamespace) -> str:
    """The address of something of the project support, or of the organisation."""
    things = {
        "calls": world.call.pk, "jobs": world.job.pk, "audit-events": world.event.pk, "models": world.model.slug,
        "revisions": world.revision.number, "projects": "support", "service-keys": world.key.pk,
        "memberships": world.membership.pk, "users": world.eve.pk, "providers": world.provider.slug,
        "policies": world.policy.slug, "credentials": world.staged.pk, "routes": world.route.slug, "budgets": world.budget.pk,
        "approvals": world.raise_asked.pk, "rotations": world.rotation.pk, "prompts": world.prompt.pk,
        "incidents": world.incident.pk, "slos": world.slo.pk, "stand-ins": world.stand_in.pk, "tools": world.tool.pk, "actions": world.lost_action.pk,
        "runs": world.started_run.pk, "datasets": world.dataset.pk, "replays": world.replay.pk,
    }  # fmt: skip
    if not route.startswith("/api/v1/") or "{" not in route:
        return stand_in(route, world)
    return re.sub(r"\{\w+\}", str(things[route.split("/")[3]]), route)


def test_every_address_has_a_row():
    api = set(surface.api_routes()) | {"GET /api/v1/schema/", "GET /api/v1/docs/"}
    assert set(API_ROWS) == api
    shown = {f"GET {route}" for route in surface.admin_pages() | surface.other_pages()}
    shown -= {f"GET {route}" for route in SAME_FOR_ALL} | api
    looked = {key for key in LOOKS if key.split()[1].startswith("/admin/")}
    changed = set(ADMIN) | looked | set(PAGES) - {"POST /admin/logout/"}
    assert set(PAGE_ROWS) == shown | changed


@pytest.mark.any_engine
@pytest.mark.parametrize("kind", ["looking", "changing"])
def test_the_api(world, kind):
    found = {}
    for key in API_ROWS:
        if key.startswith("GET ") != (kind == "looking"):
            continue
        codes = ""
        place = looked_at(key.split()[1], world) if kind == "looking" else ""
        for actor in ACTORS:
            with undone():
                if key.startswith("GET "):
                    answer = world.clients[actor].get(place)
                else:
                    answer = call_api(world.clients[actor], key, {**API, **LOOKS, **REPORTS}[key], world)
            codes += code(answer)
        found[key] = codes
    assert found == {key: API_ROWS[key] for key in found}


class Rendering:
    """Whether what is answered with is rendered, or only made ready to be; a code tells nothing about its text."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, str]] = set()
        self.wanted = True

    @contextmanager
    def once(self, key: str, actor: str) -> Iterator[None]:
        """The block asks, as ``actor``, for what the row ``key`` is about."""
        kind = key, _KINDS.get(actor, "a project")
        self.wanted = kind not in self._seen
        self._seen.add(kind)
        try:
            yield
        finally:
            self.wanted = True


@pytest.fixture
def rendering(monkeypatch: pytest.MonkeyPatch) -> Rendering:
    chosen, render = Rendering(), Template._render

    def render_wanted(self: Template, context: Context) -> SafeString:
        if chosen.wanted:
            return render(self, context)
        template_rendered.send(sender=self, template=self, context=context)
        return SafeString("")

    monkeypatch.setattr(Template, "_render", render_wanted)
    return chosen


@pytest.mark.any_engine
@pytest.mark.parametrize("area", AREAS)
def test_the_pages(world, area, rendering):
    found = {}
    for key, expected in PAGE_ROWS.items():
        if area_of(key) != area:
            continue
        change: Change | None = {**ADMIN, **LOOKS, **PAGES}.get(key)
        form: dict[str, Any] = {}
        if key in ADMIN or key in LOOKS:
            form = fill_form(world.clients["root"], key, change, world)
        codes = ""
        place = looked_at(key.split()[1], world) if change is None else ""
        for actor in PEOPLE:
            client = world.clients[actor]
            if key in PAGES and change:
                # Anew for each: a file that one has sent is at its end.
                form = change.sent(world)
            elif change:
                for sent in form.values():
                    if hasattr(sent, "seek"):
                        sent.seek(0)
            if change is None:
                with rendering.once(key, actor):
                    codes += code(client.get(place))
                continue
            with undone(), rendering.once(key, actor):
                codes += code(client.post(address(key, change, world), form))
        if key.endswith(ASKS_A_PROVIDER):
            # The page says, as an error, that the key does not work: it was tried.
            codes = codes.replace("f", "+")
        found[key] = codes
        assert len(codes) == len(expected)
    assert found == {key: PAGE_ROWS[key] for key in found}


@pytest.mark.any_engine
def test_keys_open_no_page(world):
    client = world.clients["k_everything"]
    for key in PAGE_ROWS:
        answer = client.get(looked_at(key.split()[1], world))
        same_for_all = {"0" * len(PEOPLE): ["0"], "405" * len(PEOPLE): ["405"]}
        assert code(answer) in same_for_all.get(PAGE_ROWS[key], ["L", "1"]), (key, answer.status_code)


@pytest.mark.any_engine
def test_what_is_the_same_for_everybody(world):
    for actor in ACTORS:
        client = world.clients[actor]
        assert client.get("/admin/login/").status_code in (200, 302)
        for route in ("/api/", "/api/v1/", "/api/nothing/"):
            assert client.get(route).status_code == 404
