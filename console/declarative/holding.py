"""Locking what a file is about, before anything of it is carried out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from django.db.models import QuerySet

from console.declarative.alerting import CHANNEL, RULE, SLO
from console.declarative.schema import DEFAULT_ROUTE, Entry
from llmops.access.models import Project, ServiceKey
from llmops.alerts.models import Channel, Rule, Slo
from llmops.budgets.models import Budget
from llmops.budgets.scopes import KEY, PROJECT
from llmops.policies.models import Policy
from llmops.prompts.models import Prompt
from llmops.providers.models import Credential, Model, Provider, Route
from llmops.providers.services.routes import MODEL_FIELDS
from llmops.tools.models import Tool


def hold(entries: list[Entry]) -> None:
    """Lock every row that the file names or refers to, before the first step locks the end of the audit trail.

    Others lock a row first and the trail last; whoever did it the other way round could wait for them, and they for it.
    """
    names: dict[str, set[str]] = defaultdict(set)
    for entry in entries:
        names[entry.kind].add(entry.key)
        for member in ("project", "provider"):
            if entry.values.get(member):
                names[member].add(entry.values[member])
        if entry.kind == "budget" and entry.values["scope_kind"] in (PROJECT, KEY):
            kind = "project" if entry.values["scope_kind"] == PROJECT else "service key"
            names[kind].add(entry.values["scope_value"])
        if entry.kind == "budget" and entry.values["at_limit_route"]:
            names["route"].add(entry.values["at_limit_route"])
        if entry.kind == "route":
            names["model"].update(models_of(entry.values))
            names["policy"].update(entry.values["policies"])
        if entry.kind == DEFAULT_ROUTE:
            names["project"].add(entry.key)
            names["route"].add(entry.values["default_route"])
    keys = [key.partition("/") for key in names["service key"]]
    rows: list[QuerySet[Any]] = [
        Project.objects.filter(slug__in=names["project"] | {project for project, _, _ in keys}),
        Provider.objects.filter(slug__in=names["provider"]),
        Credential.objects.filter(provider__slug__in=names["provider"]),
        Model.objects.filter(slug__in=names["model"]),
        Policy.objects.filter(slug__in=names["policy"]),
        Route.objects.filter(slug__in=names["route"]),
        Prompt.objects.filter(slug__in={key.rpartition("/")[2] for key in names["prompt"]}),
        Tool.objects.filter(slug__in={key.rpartition("/")[2] for key in names["tool"]}),
        ServiceKey.objects.filter(project__slug__in={project for project, _, _ in keys}),
        Budget.objects.filter(slug__in=names["budget"]),
        Slo.objects.filter(slug__in=names[SLO]),
        Rule.objects.filter(slug__in=names[RULE]),
        Channel.objects.filter(slug__in=names[CHANNEL]),
    ]
    for found in rows:
        list(found.select_for_update(of=("self",)).order_by("pk").values_list("pk", flat=True))


def models_of(route: Mapping[str, Any]) -> Iterator[str]:
    """Every model that the values of a route name."""
    yield from route.get("targets") or ()
    yield from route.get("fallbacks") or ()
    for chosen in (route.get("fallbacks_for") or {}).values():
        yield from chosen
    yield from (route[name] for name in MODEL_FIELDS if route.get(name))
