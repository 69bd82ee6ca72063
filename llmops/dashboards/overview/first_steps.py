"""What is still to be done before a first call can be answered, in the order in which it is done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db.models import Exists, OuterRef, QuerySet
from django.urls import reverse

from llmops.access.models import Project, ServiceKey
from llmops.access.selectors import may
from llmops.dashboards.reader import Reader
from llmops.providers.models import Credential, Model, Price, Provider, Route
from llmops.serving.selectors import live_revision


@dataclass(frozen=True, slots=True)
class Step:
    """``url`` is empty where the reader may not take this step."""

    title: str
    why: str
    done: bool
    url: str = ""


def first_steps(reader: Reader) -> list[Step]:
    """Whether each is done is told of the whole installation, and says no more of it than that."""
    credentials = Credential.objects.filter(provider__archived_at=None)
    waiting = credentials.filter(state__in=("staged", "probed")).order_by("-created_at").first()
    priced = Exists(Price.objects.filter(model=OuterRef("pk")))
    models = Model.objects.filter(archived_at=None)
    unpriced = models.exclude(priced).order_by("slug").first()
    listed = _address(reader, "providers.model", "admin:providers_model_from_a_list")
    return [
        Step(
            "Make a project",
            "The unit that spends: keys, budgets and calls belong to one.",
            _any(Project),
            reader.link("access.project", action="add"),
        ),
        Step(
            "Add a provider",
            "Where the models are: OpenAI, Azure, or whatever speaks OpenAI's protocol.",
            _any(Provider),
            reader.link("providers.provider", action="add"),
        ),
        Step(
            "Give it a key, probe it, activate it",
            f"{waiting} waits to be probed and activated."
            if waiting
            else "Kept encrypted and never shown again. The probe asks the provider with it before any service does.",
            credentials.filter(state="active").exists(),
            reader.link(
                "providers.credential", waiting.pk if waiting else None, action="change" if waiting else "add"
            ),
        ),
        Step(
            "Take a model from the provider's list, and say what it costs",
            f"{unpriced} has no price yet, and a budget refuses what has none."
            if unpriced
            else "Pinned to one version of it, so that it does not change by itself.",
            models.filter(priced).exists(),
            reader.link("providers.model", unpriced.pk) if unpriced else listed,
        ),
        Step(
            "Draw a route to it",
            "The name that services call. What stands behind it, and what takes over when that fails, is yours to change.",
            _any(Route),
            _address(reader, "providers.route", "dashboards:route_add"),
        ),
        Step(
            "Publish",
            "Makes all of this live at once, as one revision that can be undone in one click.",
            live_revision() is not None,
            reverse("admin:serving_revision_publish") if may(reader.request, "revision.publish") else "",
        ),
        Step(
            "Issue a service key",
            "What a service signs in with. It is shown once, when it is made.",
            ServiceKey.objects.filter(held_by_console=False).exists(),
            reader.link("access.servicekey", action="add"),
        ),
    ]


def _any(model: Any) -> bool:
    rows: QuerySet[Any] = model.objects.filter(archived_at=None)
    return rows.exists()


def _address(reader: Reader, label: str, name: str) -> str:
    return reverse(name) if reader.link(label, action="add") else ""
