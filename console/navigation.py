"""What the navigation offers to whom. One list for the admin and for the console's own pages.

An entry that leads to the admin shows when the page behind it would open (the model admin's own view permission); an
entry that leads to a page of the console shows when its permission is held in at least one project, or in the whole
organisation where the page is about that.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from django.conf import settings
from django.contrib import admin
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest
from django.urls import NoReverseMatch, get_script_prefix, reverse

from llmops.access.selectors import may, may_anywhere


@dataclass(frozen=True, slots=True)
class Entry:
    """``model`` is ``app_label.modelname`` of an admin page, or ``url`` and ``permission`` say where and for whom; ``whole``:
    for those who hold the permission in the whole organisation."""

    title: str
    icon: str
    model: str = ""
    url: str = ""
    permission: str = ""
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Link:
    title: str
    icon: str
    href: str
    current: bool


@dataclass(frozen=True, slots=True)
class Section:
    title: str
    links: tuple[Link, ...]


SECTIONS: tuple[tuple[str, tuple[Entry, ...]], ...] = (
    (
        "",
        (
            Entry("Overview", "overview", url="dashboards:overview"),
            Entry("Alerts", "alert", url="alerts:alerts", permission="alert.view"),
            Entry("Reliability", "reliability", url="dashboards:reliability", permission="usage.view"),
            Entry("Traffic", "traffic", url="dashboards:traffic", permission="usage.view"),
            Entry("Quality", "quality", url="dashboards:quality", permission="usage.view"),
            Entry("Spend", "spend", url="dashboards:spend", permission="usage.view"),
            Entry(
                "Reconciliation",
                "reconciliation",
                url="dashboards:reconciliation",
                permission="usage.view",
                whole=True,
            ),
            Entry("Playground", "flask", url="playground:page", permission="playground.use"),
            Entry("Calls", "calls", url="dashboards:calls", permission="usage.view"),
            Entry("Datasets", "dataset", url="evals:datasets", permission="dataset.view"),
            Entry("Runs", "runs", url="dashboards:runs", permission="run.view"),
            Entry("Switches", "switch", url="dashboards:switches", permission="route.view"),
            Entry("Jobs", "jobs", url="dashboards:jobs", permission="usage.view"),
            Entry("Readiness", "ready", url="dashboards:readiness", permission="provider.view", whole=True),
        ),
    ),
    (
        "Configure",
        (
            Entry("Providers", "provider", model="providers.provider"),
            Entry("Credentials", "credential", model="providers.credential"),
            Entry("Rotations", "rotation", model="providers.rotation"),
            Entry("Models", "model", model="providers.model"),
            Entry("Prices", "price", model="providers.price"),
            Entry("Routes", "route", model="providers.route"),
            Entry("What if", "whatif", url="dashboards:whatif", permission="route.view"),
            Entry("Prompts", "prompt", model="prompts.prompt"),
            Entry("Policies", "policy", model="policies.policy"),
            Entry("Tools", "tool", model="tools.tool"),
            Entry("Revisions", "revision", model="serving.revision"),
        ),
    ),
    (
        "Govern",
        (
            Entry("Projects", "project", model="access.project"),
            Entry("Service keys", "key", model="access.servicekey"),
            Entry("Members", "member", model="access.membership"),
            Entry("Users", "user", model="auth.user"),
            Entry("Master keys", "lock", model="base.masterkeyverifier"),
            Entry("Budgets", "budget", model="budgets.budget"),
            Entry("Inbox", "inbox", url="dashboards:inbox", permission="approval.view"),
            Entry("Actions", "action", model="tools.action"),
            Entry("Alert rules", "rule", model="alerts.rule"),
            Entry("SLOs", "target", model="alerts.slo"),
            Entry("Alert channels", "bell", model="alerts.channel"),
            Entry("Approvals", "approval", model="approvals.request"),
        ),
    ),
    ("Prove", (Entry("Audit", "audit", url="dashboards:audit", permission="audit.view"),)),
)


def sections(request: HttpRequest) -> list[Section]:
    """The sections that the signed-in person may see, with the entry of the present page marked."""
    found = []
    for title, entries in SECTIONS:
        links = tuple(link for entry in entries if (link := _link(entry, request)))
        if links:
            found.append(Section(title, links))
    return found


def _link(entry: Entry, request: HttpRequest) -> Link | None:
    href = _address(entry, settings.ROOT_URLCONF, get_script_prefix())
    if href is None:
        return None
    if entry.model:
        shown = bool(_admin_of(entry.model).has_view_permission(request))
    else:
        held = may if entry.whole else may_anywhere
        shown = not entry.permission or held(request, entry.permission)
    if not shown:
        return None
    path = request.path
    return Link(entry.title, entry.icon, href, path == href or (href != "/" and path.startswith(href)))


@cache
def _address(entry: Entry, urlconf: str, prefix: str) -> str | None:
    """None for what this process has no page of. Found once: every page has the whole navigation."""
    name = f"admin:{entry.model.replace('.', '_')}_changelist" if entry.model else entry.url
    try:
        return reverse(name)
    except NoReverseMatch:
        return None


@cache
def _admin_of(label: str) -> Any:
    for model, model_admin in admin.site._registry.items():
        if model._meta.label_lower == label:
            return model_admin
    raise ImproperlyConfigured(f"The navigation names {label}, which has an address but no admin page.")
