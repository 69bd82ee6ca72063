"""What the Audit page shows, as its address says it.

An address with a value that cannot be understood still opens: the value is left out and ``problems`` says which and why.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.contrib.auth import get_user_model
from django.db.models import Q

from llmops.access.models import ServiceKey
from llmops.audit.searching import Search
from llmops.dashboards.filters import EARLIEST, stamp

#: Filters that are plain text, with the longest value that can match anything.
TEXTS = {"kind": 60, "object": 64, "who": 200, "action": 100, "ip": 64, "request": 80}
#: People and keys that one text may stand for.
_MOST_ACTORS = 40


@dataclass(frozen=True, slots=True)
class TrailQuery:
    """``start`` and ``end`` in UTC; ``before`` and ``after`` are sequence numbers between which the page lies."""

    project: UUID | None = None
    kind: str = ""
    object: str = ""
    who: str = ""
    action: str = ""
    ip: str = ""
    request: str = ""
    start: datetime | None = None
    end: datetime | None = None
    before: int | None = None
    after: int | None = None
    problems: tuple[str, ...] = ()

    def pairs(self) -> dict[str, str]:
        """Members of the address that narrow, without the place of the page."""
        found = {
            name: str(value)
            for name in ("project", *TEXTS)
            if (value := getattr(self, name)) not in (None, "")
        }
        if self.start:
            found["from"] = stamp(self.start)
        if self.end:
            found["to"] = stamp(self.end)
        return found

    def query(self, **changes: Any) -> str:
        """The address's query with ``changes``; None removes a member. Empty, or begins with ``?``."""
        found = {**self.pairs(), **changes}
        text = urlencode({name: str(value) for name, value in found.items() if value not in (None, "")})
        return f"?{text}" if text else ""

    def search(self, project_ids: Collection[Any] | None) -> Search:
        """``project_ids`` is what the reader may see; None is everything."""
        if self.project is not None:
            may_see = project_ids is None or self.project in project_ids
            project_ids = [self.project] if may_see else []
        return Search(
            project_ids=project_ids,
            object_type=self.kind,
            object_id=self.object,
            actor_ids=actors_named(self.who) if self.who else None,
            action=self.action,
            ip=self.ip,
            request_id=self.request,
            since=self.start,
            until=self.end,
        )


def parse(given: Mapping[str, str], *, now: datetime) -> TrailQuery:
    problems: list[str] = []
    found: dict[str, Any] = {}
    if text := given.get("project", "").strip():
        try:
            found["project"] = UUID(text)
        except ValueError:
            problems.append(f"project: {text[:40]!r} is not an id; choose one from the list.")
    for name, longest in TEXTS.items():
        text = given.get(name, "").strip()
        if "\x00" in text or len(text) > longest:
            problems.append(f"{name}: at most {longest} plain characters.")
        elif text:
            found[name] = text
    for name, field in (("from", "start"), ("to", "end")):
        if text := given.get(name, "").strip():
            try:
                at = datetime.fromisoformat(text.replace(" ", "+"))
                at = at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
            except (ValueError, OverflowError):
                problems.append(f"{name}: {text[:40]!r} is not a moment such as 2026-11-21T14:30Z.")
                continue
            if at < EARLIEST or at.year > now.year + 100:
                problems.append(f"{name}: {text[:40]!r} lies outside of what can be shown.")
                continue
            found[field] = at.replace(microsecond=0)
    if "start" in found and "end" in found and found["start"] >= found["end"]:
        problems.append("from: the start must lie before the end.")
        del found["start"], found["end"]
    for name in ("before", "after"):
        text = given.get(name, "").strip()
        if text.isascii() and text.isdigit() and len(text) < 19:
            found[name] = int(text)
            break
    return TrailQuery(**found, problems=tuple(problems))


def actors_named(text: str) -> list[str]:
    """Identifiers of whom ``text`` may mean: accounts and keys by name, commands and jobs, or an identifier itself.

    Events tell names as ``Ada Byron (ada)``, ``ci (llmops_1a2b3c4d)``, ``root (manage.py apply)`` or ``job access.reseal``:
    each of these is understood as well.
    """
    inner = re.search(r"\(([^()]+)\)\s*$", text)
    words = {text, inner.group(1) if inner else text}
    words |= {word.removeprefix("manage.py ").removeprefix("job ") for word in words}
    people = Q()
    keys = Q()
    for word in words:
        people |= Q(username__iexact=word) | Q(first_name__iexact=word) | Q(last_name__iexact=word)
        first, _, last = word.partition(" ")
        if last:
            people |= Q(first_name__iexact=first, last_name__iexact=last)
        keys |= Q(prefix=word.rstrip("…")) | Q(name__iexact=word)
    found = [
        str(pk) for pk in get_user_model().objects.filter(people).values_list("pk", flat=True)[:_MOST_ACTORS]
    ]
    found += [str(pk) for pk in ServiceKey.objects.filter(keys).values_list("pk", flat=True)[:_MOST_ACTORS]]
    return sorted({*found, *(word[:64] for word in words)})


def name_to_find(kind: str, identifier: str, name: str) -> str:
    """What to put into ``who`` so that it finds this actor again: a name where that does, else the identifier."""
    if kind == "user":
        inner = re.search(r"\(([^()]+)\)\s*$", name)
        return inner.group(1) if inner else name
    if kind == "service_key" and (inner := re.search(r"\(([^()]+)\)\s*$", name)):
        return inner.group(1)
    return identifier
