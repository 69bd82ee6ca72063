"""What the Overview shows, as text and numbers ready for the template."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import Max, Sum
from django.urls import reverse
from django.utils import timezone

from llmops.access.models import ServiceKey
from llmops.access.selectors import grace_in_words, graces_that_end_soon, may, may_anywhere, visible
from llmops.approvals.selectors import waiting
from llmops.budgets.selectors import Gauge, gauges, recent_crossings
from llmops.budgets.wording import used_up_text
from llmops.core.digests import sha256_hex
from llmops.dashboards import breakdown, formats
from llmops.dashboards.calls import rows_of
from llmops.dashboards.filters import FAILED, Filters
from llmops.dashboards.overview import panels
from llmops.dashboards.overview.shapes import FindingRow, Notice, View
from llmops.dashboards.reader import Reader
from llmops.dashboards.simulated import simulated_in_words, simulated_models, simulated_providers
from llmops.dashboards.verdict import Avoided, Facts, Finding, Paused, Spent, Unreadable, Verdict, judge
from llmops.providers.models import OpenBreaker, Route
from llmops.providers.selectors import (
    keys_due,
    open_breakers,
    refused_credentials,
    returned_rotations,
    switched,
    unreadable,
)
from llmops.serving.selectors import organisation_switches
from llmops.serving.switches import SWITCHES
from llmops.usage.models import Call, Journal
from llmops.usage.selectors import CallFilters, Overview, calls_page, overview

RECENT = 12
#: Thresholds that were crossed are told of for so long, and no more than so many.
NOTICES_FOR, MOST_NOTICES = timedelta(days=2), 6
#: Figures grow old by themselves (calls leave the range), so a live page renews them at least this often, in seconds.
STALE_AFTER = 15
#: Keys that are due, named one by one.
_MOST_DUE = 5


def build(reader: Reader, filters: Filters, standing: Sequence[Gauge]) -> View:
    """``standing`` are the budgets as ``standings`` gives them."""
    project_ids = reader.project_ids(filters.project)
    period = filters.period
    figures = overview(
        start=period.start, end=period.end, project_ids=project_ids, granularity=period.granularity
    )
    before = overview(
        start=figures.start - period.length,
        end=figures.start,
        project_ids=project_ids,
        granularity=figures.granularity,
        series=False,
    )
    recent = calls_page(
        filters=CallFilters(project_ids=project_ids, start=figures.start, end=figures.end), page_size=RECENT
    )
    links = panels.Links(filters, figures)
    simulated = simulated_models()
    where: dict[str, Any] = {
        "start": figures.start,
        "end": figures.end,
        "granularity": figures.granularity,
        "project_ids": project_ids,
    }
    routes, models = breakdown.by_route_and_model(**where)
    verdict = _verdict(reader, figures, before, standing, period.words)
    view = View(
        verdict=verdict,
        findings=[FindingRow(finding.text, _address(finding, links)) for finding in verdict.findings],
        summary=_summary(figures, standing, period.words),
        nothing_yet=not figures.calls
        and not figures.errands
        and not before.calls
        and not _any_call(project_ids),
        no_project=not reader.everywhere and not reader.projects,
        simulated=simulated_in_words([group.name for group in models if group.name in simulated]),
        bucket_style={60: "minute", 3_600: "minute"}.get(figures.granularity, "day"),
    )
    view.tiles = panels.tiles(figures, before, period.words, links)
    view.charts, view.chart_data = panels.charts(figures, links, period.words)
    view.routes = panels.group_rows(routes, links, "route")
    view.models = panels.group_rows(models, links, "model", simulated)
    view.errors = panels.errors(figures, links)
    view.gauges = [panels.gauge_row(gauge, reader) for gauge in standing]
    view.notices = _notices(reader, standing)
    view.inbox = reader.link("approvals.request")
    view.waiting = waiting(reader.request) if view.inbox else 0
    view.recent = rows_of(recent, simulated=simulated_providers())
    return view


def standings(reader: Reader, filters: Filters, now: datetime) -> list[Gauge]:
    """Budgets that matter here: those that are used up, then the fullest."""
    found = [
        gauge
        for gauge in gauges(reader.budget_project_ids(), now)
        if reader.sees_gauge(gauge, filters.project)
    ]
    return sorted(found, key=lambda gauge: (not gauge.used_up, -_used_share(gauge), gauge.slug))


def _used_share(gauge: Gauge) -> float:
    return gauge.used_nano / gauge.limit_nano if gauge.limit_nano else 0


def marker(reader: Reader, filters: Filters, standing: Sequence[Gauge], *, now: datetime) -> str:
    """Changes whenever the page would: a call was booked, a budget moved, or figures have grown old. Two queries."""
    project_ids = reader.project_ids(filters.project)
    booked = Journal.objects.aggregate(Sum("sequence"), Max("opened_at"))
    newest = Call.objects.order_by("-started_at", "-id")
    if project_ids is not None:
        newest = newest.filter(project_id__in=project_ids)
    budgets = [
        (gauge.slug, gauge.settled_nano, gauge.held_nano, gauge.limit_nano, gauge.used_up)
        for gauge in standing
    ]
    last = newest.values_list("pk", flat=True).first()
    age = int(now.timestamp()) // STALE_AFTER
    return sha256_hex(repr((booked, last, budgets, age, filters.pairs())).encode())[:20]


def _notices(reader: Reader, standing: Sequence[Gauge]) -> list[Notice]:
    since = datetime.now(UTC) - NOTICES_FOR
    found = recent_crossings([gauge.budget_id for gauge in standing], since)
    return [
        Notice(
            row.window.budget.slug,
            reader.link("budgets.budget", row.window.budget_id),
            row.percent,
            row.crossed_at,
            row.refusing,
            row.limit_nano,
        )
        for row in found[:MOST_NOTICES]
    ]


def _any_call(project_ids: Collection[UUID] | None) -> bool:
    calls = Call.objects.order_by("-started_at", "-id")
    if project_ids is not None:
        calls = calls.filter(project_id__in=project_ids)
    return calls.exists()


def _address(finding: Finding, links: panels.Links) -> str:
    """Where a finding leads to; empty where it leads nowhere."""
    if finding.place == "budgets":
        return "#budgets"
    if finding.place == "":
        return finding.href
    return links.calls(**dict(part.split("=") for part in finding.query.split("&") if part))


def _verdict(
    reader: Reader, now: Overview, before: Overview, standing: Sequence[Gauge], period: str
) -> Verdict:
    failed = [code for code in now.error_codes if code.status in FAILED]
    refused = [code for code in now.error_codes if code.status == Call.REFUSED]
    return judge(
        Facts(
            calls=now.calls,
            failed=now.errors,
            refused=now.refused,
            unknown=now.by_status.get(Call.UNKNOWN, 0),
            fallback=now.fallback_calls,
            p95_us=now.total.p95,
            calls_before=before.calls,
            p95_before_us=before.total.p95,
            worst_error=failed[0].code if failed else "",
            worst_error_calls=failed[0].calls if failed else 0,
            refusal=refused[0].code if refused else "",
            refusal_calls=refused[0].calls if refused else 0,
            budgets=[
                Spent(gauge.slug, gauge.used_nano, gauge.limit_nano, gauge.hard, used_up_text(gauge))
                for gauge in standing
            ],
            paused=_paused(reader),
            unreadable=_unreadable(reader),
            signals=now.signals,
            avoided=[*_breakers(reader), *_refused(reader), *_keys_to_rotate(reader), *_old_secrets(reader)],
        ),
        period=period,
    )


def _paused(reader: Reader) -> list[Paused]:
    if not (reader.everywhere or reader.projects):
        return []
    page = reverse("dashboards:switches") if may_anywhere(reader.request, "route.view") else ""
    return [
        *(
            Paused("Switch", SWITCHES[row.name].title, row.reason, page, "on")
            for row in organisation_switches()
            if row.name in SWITCHES
        ),
        *_paused_keys(reader),
        *_paused_objects(reader),
    ]


def _paused_keys(reader: Reader) -> list[Paused]:
    keys = ServiceKey.objects.filter(paused_at__isnull=False, revoked_at=None).select_related("project")
    return [
        Paused("Service key", row.name, row.pause_reason, reader.link("access.servicekey", row.pk))
        for row in visible(keys, reader.request, "service_key.view").order_by("project__slug", "name")
    ]


def _paused_objects(reader: Reader) -> list[Paused]:
    return [
        Paused(
            row._meta.object_name or "",
            row.slug,
            reason,
            reader.link(row._meta.label_lower, row.pk),
            how,
        )
        for row, how, reason in switched()
    ]


def _breakers(reader: Reader) -> list[Avoided]:
    """Targets that are left alone, one for all data planes that do so."""
    if not (reader.everywhere or reader.projects):
        return []
    found: dict[tuple[str, str, str], list[OpenBreaker]] = {}
    mine = {project.slug for project in reader.projects}
    for one in open_breakers():
        if not one.project or reader.everywhere or one.project in mine:
            found.setdefault((one.route, one.model, one.project), []).append(one)
    routes = dict(Route.objects.filter(slug__in=[route for route, *_ in found]).values_list("slug", "pk"))
    avoided = []
    for (route, model, project), rows in found.items():
        first = min(rows, key=lambda row: row.since)
        who = "a data plane" if len(rows) == 1 else f"{formats.count(len(rows))} data planes"
        where = f" of route {route}" if route else ""
        where += f" for the calls of project {project}, which alone fail there," if project else ""
        text = f"Target {model}{where} is left alone by {who} since {first.since:%Y-%m-%d %H:%M:%S} UTC: {first.why}"
        avoided.append(
            Avoided(text, reader.link("providers.route", routes[route]) if route in routes else "")
        )
    return avoided


def _refused(reader: Reader) -> list[Avoided]:
    """Provider keys in use that their provider refuses; calls go on with the others, if there are any."""
    if not may(reader.request, "provider.view"):
        return []
    return [
        Avoided(
            f"Provider key {credential} was refused by its provider at {event.at:%Y-%m-%d %H:%M:%S} UTC "
            f"({event.get_kind_display().lower()}, {event.text}) and is avoided",
            reader.link("providers.credential", credential.pk),
        )
        for credential, event in refused_credentials()
    ]


def _keys_to_rotate(reader: Reader) -> list[Avoided]:
    """Rotations that were taken back, and provider keys that are due."""
    if not may(reader.request, "provider.view"):
        return []
    now = timezone.now()
    found = [
        Avoided(
            f"The rotation of {rotation.old} was taken back: {rotation.outcome}",
            reader.link("providers.rotation", rotation.pk),
        )
        for rotation in returned_rotations(now)
    ]
    due = keys_due(now)
    found += [
        Avoided(
            f"Provider key {one.credential} is due to be rotated: {one.in_words()}",
            reader.link("providers.credential", one.credential.pk),
        )
        for one in due[:_MOST_DUE]
    ]
    if len(due) > _MOST_DUE:
        found.append(Avoided(f"{len(due) - _MOST_DUE} more provider keys are due to be rotated"))
    return found


def _old_secrets(reader: Reader) -> list[Avoided]:
    """Secrets of service keys that end soon and are still sent by somebody."""
    now = timezone.now()
    seen = visible(ServiceKey.objects.all(), reader.request, "service_key.view")
    return [
        Avoided(grace_in_words(key, now), reader.link("access.servicekey", key.pk))
        for key in graces_that_end_soon(now, seen)[:_MOST_DUE]
    ]


def _unreadable(reader: Reader) -> list[Unreadable]:
    """For those who may see provider keys: the reasons name variables and files of the hosts."""
    if not may(reader.request, "provider.view"):
        return []
    return [
        Unreadable(
            str(credential),
            troubles[0].reason,
            len(troubles),
            only,
            reader.link("providers.credential", credential.pk),
        )
        for credential, troubles, only in unreadable()
    ]


def _summary(now: Overview, standing: Sequence[Gauge], period: str) -> str:
    if not now.calls:
        return "Choose a longer time, or wait: the page follows by itself."
    said = [f"{formats.count(now.calls)} {'call' if now.calls == 1 else 'calls'} in {period}"]
    said.append(f"{formats.percent(now.errors, now.calls)} failed" if now.errors else "none failed")
    if standing:
        fullest = standing[0]
        said.append(
            f"fullest budget {fullest.slug} at {formats.percent(fullest.used_nano, fullest.limit_nano)}"
        )
    return ", ".join(said) + "."
