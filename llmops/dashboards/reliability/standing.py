"""What stands now, whatever time is shown: breakers, provider keys, and what is left of limits."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.urls import reverse
from django.utils import timezone

from llmops.access.models import ServiceKey
from llmops.dashboards import formats
from llmops.dashboards.boards import drawing
from llmops.dashboards.boards.gather import Gathered
from llmops.dashboards.boards.shapes import Cell, Column, Table
from llmops.dashboards.verdict import Avoided
from llmops.providers.models import Credential, OpenBreaker, Route
from llmops.providers.selectors import headroom as provider_headroom
from llmops.providers.selectors import open_breakers, refused_credentials, unreadable
from llmops.usage.selectors.boards import busiest_minutes

_LATELY = timedelta(hours=1)
_MOST_KEYS = 30
_NEAR, _AT = 0.8, 0.98


@dataclass(frozen=True, slots=True)
class Health:
    breakers: Table
    credentials: Table
    avoided: list[Avoided]


def health(of: Gathered) -> Health:
    breakers, avoided = _breakers(of)
    credentials, refused = _credentials(of)
    return Health(breakers, credentials, [*avoided, *refused])


def _breakers(of: Gathered) -> tuple[Table, list[Avoided]]:
    found: dict[tuple[str, str, str], list[OpenBreaker]] = {}
    mine = {slug for _, slug in of.scope.projects}
    if not of.scope.nothing:
        for one in open_breakers():
            if not one.project or of.scope.everywhere or one.project in mine:
                found.setdefault((one.route, one.model, one.project), []).append(one)
    routes = {}
    if of.scope.routes and found:
        routes = dict(Route.objects.filter(slug__in={key[0] for key in found}).values_list("slug", "pk"))
    rows, avoided = [], []
    for (route, model, project), ones in sorted(found.items()):
        first = min(ones, key=lambda one: one.since)
        href = reverse("admin:providers_route_change", args=[routes[route]]) if route in routes else ""
        where = f" of route {route}" if route else ""
        whose = f", for project {project} alone" if project else ""
        avoided.append(
            Avoided(
                f"Target {model}{where} is left alone since {first.since:%Y-%m-%d %H:%M:%S} UTC{whose}: {first.why}",
                href,
            )
        )
        rows.append(
            (
                Cell(model, of.calls(model=model), "bad"),
                Cell(route or "any", href),
                Cell(f"{first.since:%Y-%m-%d %H:%M:%S} UTC", number=first.since.isoformat()),
                drawing.number(len(ones)),
                Cell((first.why or "") + whose),
            )
        )
    return Table(
        "breakers",
        "Breakers, now",
        (Column("Target", False), Column("Route", False), Column("Open since", False), Column("Data planes"), Column("Why", False, "wide-only")),
        tuple(rows),
        "All breakers are closed: no target is left alone.",
    ), avoided  # fmt: skip


def _credentials(of: Gathered) -> tuple[Table, list[Avoided]]:
    columns = (Column("Key", False), Column("State", False), Column("Last used", False, "wide-only"), Column("Last failure", False, "wide-only"))  # fmt: skip
    if not of.scope.providers:
        told = "Provider keys show to those who may see providers in the whole organisation."
        return Table("credentials", "Provider keys, now", columns, (), told), []
    refused = {credential.pk: event for credential, event in refused_credentials()}
    hidden = {credential.pk: troubles[0].reason for credential, troubles, _ in unreadable()}
    rows, avoided = [], []
    in_use = Credential.objects.filter(state__in=("active", "draining"), provider__archived_at=None)
    ordered = sorted(
        in_use.select_related("provider").order_by("provider__slug", "name"),
        key=lambda one: one.pk not in refused and one.pk not in hidden,
    )
    for one in ordered[:_MOST_KEYS]:
        href = reverse("admin:providers_credential_change", args=[one.pk])
        state, tone = ("Works", "ok") if one.state == "active" else ("Draining", "")
        if one.pk in refused:
            state, tone = (
                f"Refused at {refused[one.pk].at:%Y-%m-%d %H:%M:%S} UTC: {refused[one.pk].text}",
                "bad",
            )
            avoided.append(Avoided(f"Provider key {one} was refused by its provider and is avoided", href))
        elif one.pk in hidden:
            state, tone = f"Cannot be read: {hidden[one.pk]}", "bad"
            avoided.append(Avoided(f"Provider key {one} cannot be read by a data plane", href))
        elif one.last_used_at is None:
            state, tone = "Not used yet", ""
        rows.append(
            (
                Cell(str(one), href),
                Cell(state, "", tone),
                Cell(_ago(one.last_used_at), number=one.last_used_at.isoformat() if one.last_used_at else ""),
                Cell(
                    f"{one.last_failure}, {_ago(one.last_failure_at)}" if one.last_failure else formats.NONE
                ),
            )
        )
    return Table(
        "credentials",
        "Provider keys, now",
        columns,
        tuple(rows),
        "No provider key is in use yet. Add one under Configure, Credentials.",
    ), avoided


def _ago(moment: datetime | None) -> str:
    if moment is None:
        return "never"
    return f"{formats.span(max(0, (timezone.now() - moment).total_seconds()))} ago"


def at_providers(of: Gathered) -> Table:
    """What providers say is left of their limits, for each key and model."""
    columns = (Column("Provider key", False), Column("Model", False), Column("Requests left"), Column("Tokens left"), Column("Told", False, "wide-only"))  # fmt: skip
    title = "Providers' rate limits: what is left"
    if not of.scope.providers:
        told = "Provider keys show to those who may see providers in the whole organisation."
        return Table("provider-limits", title, columns, (), told)
    rows = tuple(
        (
            Cell(str(key), reverse("admin:providers_credential_change", args=[key.pk])),
            Cell(row.model),
            _left(row.requests, row.requests_left),
            _left(row.tokens, row.tokens_left),
            Cell(_ago(row.at), number=row.at.isoformat()),
        )
        for key, row in provider_headroom(_LATELY)[:_MOST_KEYS]
    )
    return Table(
        "provider-limits",
        title,
        columns,
        rows,
        "No provider told of its limits within the last hour, in the headers of its answers.",
        "As the last answers told, at most ten seconds later; limits fill again by themselves, mostly within a minute.",
        wide=True,
    )


def _left(limit: int, left: int) -> Cell:
    if not limit:
        return Cell(formats.NONE, quiet="not told")
    used = 1 - left / limit
    tone = "bad" if used >= _AT else "warn" if used >= _NEAR else ""
    return Cell(
        drawing.shown(left, "count"),
        tone=tone,
        number=left,
        quiet=f"{formats.percent(left, limit)} of {formats.short_count(limit)}",
    )


def headroom(of: Gathered) -> Table:
    """What keys used of their limits in their busiest minute of the last hour."""
    columns = (Column("Service key", False), Column("Calls a minute"), Column("Tokens a minute"), Column("At a time", True, "wide-only"))  # fmt: skip
    now = timezone.now().replace(second=0, microsecond=0)
    busy = busiest_minutes(of.narrowed, now - _LATELY, now + timedelta(minutes=1))
    keys = ServiceKey.objects.filter(pk__in=list(busy)).select_related("project")
    ranked = []
    for key in keys:
        calls, tokens, busy_us = busy[key.pk]
        limits = (
            key.rpm or key.project.rpm,
            key.tpm or key.project.tpm,
            key.concurrency or key.project.concurrency,
        )
        used = (calls, tokens, busy_us / 60_000_000)
        shares = [value / limit for value, limit in zip(used, limits, strict=True) if limit]
        ranked.append((max(shares, default=-1.0), key, used, limits))
    ranked.sort(key=lambda one: (-one[0], str(one[1].name)))
    rows = tuple(
        (
            Cell(f"{key.project.slug} / {key.name}", of.calls(key=key.pk)),
            _used(used[0], limits[0]),
            _used(used[1], limits[1]),
            _used(used[2], limits[2]),
        )
        for _, key, used, limits in ranked[:_MOST_KEYS]
    )
    return Table(
        "headroom",
        "Service keys' rate limits: what is left",
        columns,
        rows,
        "No key was used in the last hour.",
        "In each key's busiest minute of the last hour, as a share of its own or its project's limit.",
    )


def _used(value: float, limit: int | None) -> Cell:
    text = drawing.shown(value, "level" if value < 10 and value % 1 else "count")
    if not limit:
        return Cell(text, number=round(value, 2), quiet="no limit")
    share = value / limit
    tone = "bad" if share >= _AT else "warn" if share >= _NEAR else ""
    return Cell(
        text,
        tone=tone,
        number=round(value, 2),
        quiet=f"{formats.percent(round(value), limit)} of {formats.short_count(limit)}",
    )
