"""The Reconciliation page: shows drifts, and takes an export over."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from llmops.access.selectors import may
from llmops.base.refusals import REFUSALS, as_console_error
from llmops.base.requests import actor_of
from llmops.dashboards.reconciliation import fetching
from llmops.dashboards.reconciliation.build import build
from llmops.providers.models import Credential, Provider
from llmops.usage.models import DriftAlert, ProviderImport
from llmops.usage.services import import_statement, request_fetch, set_source
from llmops.usage.statements.reading import MAX_BYTES

#: Days that the page shows unless it is asked for others, and the most it does.
DAYS, MOST_DAYS = 31, 100


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
@login_required
def reconciliation(request: HttpRequest) -> HttpResponse:
    # What a provider bills spans all projects.
    if not may(request, "usage.view"):
        raise PermissionDenied
    problems: list[str] = []
    chosen = (request.POST if request.method == "POST" else request.GET).get("provider", "").strip()[:63]
    if request.method == "POST":
        problems = _ACTS.get(request.POST.get("act", ""), _take_over)(request, chosen)
        if not problems:
            return HttpResponseRedirect(f"{reverse('dashboards:reconciliation')}?provider={chosen}")
    providers = list(Provider.objects.order_by("slug").values_list("slug", flat=True))
    if chosen not in providers:
        chosen = _first(providers)
    today = datetime.now(UTC).date()
    first, last, wrong = _days(request, chosen, today)
    only_off = request.GET.get("only") == "drift"
    view = build(chosen, first, last, today=today, only_off=only_off)
    if Provider.objects.filter(slug=chosen, kind="simulator").exists():
        view.simulated = f"{chosen} is a simulated provider: nobody sends an invoice for it"
    context = {
        "view": view,
        "providers": providers,
        "provider": chosen,
        "first": first.isoformat(),
        "last": last.isoformat(),
        "today": today.isoformat(),
        "only_off": only_off,
        "may_import": may(request, "usage.rebuild"),
        "may_choose_key": may(request, "provider.manage"),
        "fetching": fetching.of(chosen, today=today),
        "wrong_act": request.POST.get("act", ""),
        "problems": problems,
        "wrong": wrong,
    }
    return render(request, "dashboards/reconciliation/page.html", context, status=400 if problems else 200)


def _first(providers: list[str]) -> str:
    """The provider that was reconciled last, or any."""
    newest = DriftAlert.objects.values_list("provider", flat=True).first()
    return newest if newest in providers else providers[0] if providers else ""


def _days(request: HttpRequest, provider: str, today: date) -> tuple[date, date, str]:
    """The days that are asked for; otherwise those that the newest import speaks of, or the last ones."""
    newest = ProviderImport.objects.filter(provider=provider).first()
    usual = today - timedelta(days=DAYS), today
    if newest is not None:
        usual = max(newest.first_day, newest.last_day - timedelta(days=MOST_DAYS)), newest.last_day
    if not (request.GET.get("from") or request.GET.get("to")):
        return *usual, ""
    try:
        last = date.fromisoformat(request.GET["to"]) if request.GET.get("to") else usual[1]
        first = (
            date.fromisoformat(request.GET["from"])
            if request.GET.get("from")
            else last - timedelta(days=DAYS)
        )
    except ValueError:
        return *usual, "These days cannot be understood; write them like 2026-11-26."
    if first > last:
        return *usual, "The first day lies after the last one."
    if (last - first).days > MOST_DAYS:
        return last - timedelta(days=MOST_DAYS), last, f"At most {MOST_DAYS} days are shown at a time."
    return first, last, ""


def _take_over(request: HttpRequest, chosen: str) -> list[str]:
    """Takes the export over; answers what is wrong, line by line, or nothing."""
    if not may(request, "usage.rebuild"):
        raise PermissionDenied
    provider = Provider.objects.filter(slug=chosen).first()
    if provider is None:
        return ["provider: choose the provider whose export this is."]
    file = request.FILES.get("file")
    if file is None:
        return ["file: choose the file that the provider exported."]
    if (file.size or 0) > MAX_BYTES:
        return [f"file: it is larger than {MAX_BYTES // 1024 // 1024} MiB. Export fewer days at a time."]
    try:
        text = file.read().decode("utf-8-sig")
    except UnicodeDecodeError:
        return ["file: this is not a text file in UTF-8."]
    try:
        made = import_statement(actor_of(request), provider=provider, text=text, file_name=file.name or "")
    except REFUSALS as raised:
        refused = as_console_error(raised)
        if refused is None:
            raise
        return refused.message.splitlines()
    messages.success(request, _taken_over(made))
    return []


def _fetch(request: HttpRequest, chosen: str) -> list[str]:
    """Asks for a provider's own figures; answers what is wrong, or nothing."""
    if not may(request, "usage.rebuild"):
        raise PermissionDenied
    provider = Provider.objects.filter(slug=chosen).first()
    if provider is None:
        return ["provider: choose the provider whose figures are wanted."]
    try:
        first, last = (date.fromisoformat(request.POST.get(name, "")) for name in ("from", "to"))
    except ValueError:
        return ["from: choose the first and the last day."]
    said = f"Asked {chosen} for {first} to {last}. It takes some seconds; what came of it shows below."
    return _refusals(
        request,
        lambda: request_fetch(actor_of(request), provider=provider, first=first, last=last),
        said,
    )


def _choose_key(request: HttpRequest, chosen: str) -> list[str]:
    """With which key the provider is asked; answers what is wrong, or nothing."""
    if not may(request, "provider.manage"):
        raise PermissionDenied
    provider = Provider.objects.filter(slug=chosen).first()
    if provider is None:
        return ["provider: choose a provider."]
    credential = None
    if given := request.POST.get("credential", ""):
        try:
            credential = Credential.objects.filter(provider=provider, pk=UUID(given)).first()
        except ValueError:
            credential = None
        if credential is None:
            return ["credential: choose one from the list."]
    daily = request.POST.get("daily") == "1"
    said = f"{chosen} is asked with {credential.name}." if credential else f"{chosen} is not asked any more."
    return _refusals(
        request,
        lambda: set_source(actor_of(request), provider=provider, credential=credential, daily=daily),
        said,
    )


def _refusals(request: HttpRequest, work: Callable[[], object], said: str) -> list[str]:
    try:
        work()
    except REFUSALS as raised:
        refused = as_console_error(raised)
        if refused is None:
            raise
        return refused.message.splitlines()
    messages.success(request, said)
    return []


#: What a form of the page asks for, beside taking a file over.
_ACTS = {"fetch": _fetch, "key": _choose_key}


def _taken_over(made: ProviderImport) -> str:
    """What an import says, in a sentence or two: only days that are over are judged."""
    one_day = made.first_day == made.last_day
    said = f"Taken over: {made.first_day}" + ("." if one_day else f" to {made.last_day}.")
    still_open = made.last_day >= made.imported_at.astimezone(UTC).date()
    if not (one_day and still_open):
        drifting = made.alerts.count()
        figures = f"{drifting} figure{' drifts' if drifting == 1 else 's drift'}"
        said += f" {figures if drifting else 'Nothing drifts'} by more than 1 %"
        said += " on the days that are over." if still_open else "."
    if not still_open:
        return said
    if made.last_day >= datetime.now(UTC).date():
        return f"{said} {made.last_day} is not over: not judged yet."
    return f"{said} {made.last_day} was not over when it was imported: not judged."
