"""Carrying a plan out: every step is a call of the service that the console itself uses, all in one transaction.

Each step leaves the audit event of its service; publishing leaves one more. Where anything is refused, nothing stays.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from django.db import transaction

from console.declarative import schema
from console.declarative.alert_steps import carry_channel, carry_rule, carry_slo
from console.declarative.alerting import CHANNEL, RULE, SLO
from console.declarative.checks import BadFile, Found
from console.declarative.holding import hold, models_of
from console.declarative.plan import make_plan
from console.declarative.schema import DEFAULT_ROUTE, PUBLISHING, Entry
from console.declarative.shape import Secret
from console.declarative.state import read_state
from console.declarative.steps import (
    ACTIVATE,
    BRING_BACK,
    CHANGE,
    CREATE,
    PRICE,
    REPLACE,
    ROTATE,
    Plan,
    Step,
)
from llmops.access import services as access
from llmops.access.models import Project, ServiceKey
from llmops.approvals.models import Request
from llmops.base.locks import lock
from llmops.base.refusals import REFUSALS, as_console_error
from llmops.budgets import services as budgets
from llmops.budgets.models import Budget
from llmops.budgets.scopes import KEY
from llmops.core.actors import Actor
from llmops.core.errors import UnprocessableEntity
from llmops.policies import services as policies
from llmops.policies.models import Policy
from llmops.prompts import services as prompts
from llmops.prompts.models import Prompt
from llmops.providers import secret_stores
from llmops.providers import services as providers
from llmops.providers.models import Credential, Model, Provider, Route
from llmops.providers.services.routes import MODEL_FIELDS
from llmops.serving.selectors import pending
from llmops.serving.services import NothingToPublish, change_rule, propose
from llmops.tools import services as tools
from llmops.tools.models import Tool


@dataclass(frozen=True)
class Applied:
    """What was (or, in a rehearsal, would be) done. ``revision`` is the number published, None where none was; ``waits`` names
    what another person has to approve before it is."""

    plan: Plan
    revision: int | None
    published: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    waits: str = ""

    @property
    def nothing_to_do(self) -> bool:
        return not self.plan.steps and self.revision is None and not self.waits


_DECLARED = "declared in an applied file"


class _Rehearsed(Exception):
    """Ends the transaction of a rehearsal."""


def apply_text(
    actor: Actor,
    text: str,
    *,
    source: str = "a file",
    reason: str = "",
    with_publish: bool = True,
    dry_run: bool = False,
    environment: Mapping[str, str] | None = None,
) -> Applied:
    """Bring all that the file ``text`` names to what it says, and publish what came of it.

    ``source`` names the file in the reason of the revision, unless ``reason`` says something else. ``dry_run`` does all of it and takes it back, so that it refuses exactly what the real thing would. ``environment``
    is where ``env:`` secrets of service keys are read (this process's by default). Raises ``BadFile`` with lines, also when
    the result cannot be published; nothing is applied then.
    """
    entries = schema.read(text)
    applied: Applied | None = None
    try:
        with transaction.atomic():
            # Exclusive: what the plan was made from stays true until it is carried out.
            lock(providers.DRAFT_LOCK)
            hold(entries)
            plan = make_plan(entries, read_state(), reveal=_revealer(environment))
            for step in plan.steps:
                _carry_out(actor, step)
            applied = (
                _publish(actor, plan, reason or f"applied {source}", entries)
                if with_publish
                else Applied(plan, None)
            )
            if dry_run:
                raise _Rehearsed
    except _Rehearsed:
        pass
    assert applied is not None
    return applied


def _publish(actor: Actor, plan: Plan, reason: str, entries: list[Entry]) -> Applied:
    warnings = tuple(problem.message for problem in pending().warnings)
    try:
        made = propose(actor, reason=reason[:300])
    except NothingToPublish:
        return Applied(plan, None, warnings=warnings if plan.steps else ())
    except UnprocessableEntity as refused:
        lines = {(entry.kind, entry.key): entry.line for entry in entries}
        raise BadFile(
            [
                Found(
                    lines.get((found["kind"], found["slug"]), 1),
                    "",
                    f"cannot be published: {found['message']}",
                )
                for found in refused.data["problems"]
            ]
        ) from None
    if isinstance(made, Request):
        return Applied(plan, None, warnings=warnings, waits=made.title)
    return Applied(plan, made.number, tuple(made.changes), warnings)


def _revealer(environment: Mapping[str, str] | None) -> Callable[[Secret], str | None]:
    variables = os.environ if environment is None else environment

    def reveal(secret: Secret) -> str | None:
        if secret.scheme == "plain":
            return secret.value
        secret_stores.check_reference(secret.scheme, secret.value)
        if secret.scheme == "env":
            return variables.get(secret.value, "").strip() or None
        try:
            return secret_stores.read_secret(secret.scheme, secret.value)
        except secret_stores.SecretUnavailable:
            return None

    return reveal


def _carry_out(actor: Actor, step: Step) -> None:
    try:
        with transaction.atomic():
            _DO[step.kind](actor, step)
    except REFUSALS as refused:
        error = as_console_error(refused)
        if error is None:
            raise
        raise BadFile([Found(step.line_of(error.param), f"{step.kind} {step.key}", error.message)]) from None


def _project(actor: Actor, step: Step) -> None:
    if step.action == CREATE:
        access.create_project(actor, slug=step.key, **step.values)
        return
    project = Project.objects.get(slug=step.key)
    if step.action == BRING_BACK:
        access.restore_project(actor, project=project, reason="named in an applied file")
    elif step.action == CHANGE:
        access.update_project(actor, project=project, **step.values)


def _default_route(actor: Actor, step: Step) -> None:
    access.update_project(actor, project=Project.objects.get(slug=step.key), **step.values)


def _publishing(actor: Actor, step: Step) -> None:
    change_rule(actor, reason=_DECLARED, **step.values)


def _provider(actor: Actor, step: Step) -> None:
    if step.action == CREATE:
        fields = {name: value for name, value in step.values.items() if name not in ("kind", "base_url")}
        providers.create_provider(
            actor, slug=step.key, kind=step.values["kind"], base_url=step.values["base_url"], fields=fields
        )
        return
    provider = Provider.objects.get(slug=step.key)
    if step.action == BRING_BACK:
        providers.unarchive_provider(actor, provider=provider)
    elif step.action == CHANGE:
        providers.update_provider(actor, provider=provider, changes=step.values)


def _credential(actor: Actor, step: Step) -> None:
    provider = Provider.objects.get(slug=step.values["provider"])
    name = step.values["name"]
    secret: Secret = step.values["secret"]
    where: dict[str, Any] = (
        {"source": "sealed", "secret": secret.value}
        if secret.scheme == "plain"
        else {"source": secret.scheme, "reference": secret.value}
    )
    if step.action == CREATE:
        providers.add_credential(actor, provider=provider, name=name, activate=True, **where)
        return
    credential = Credential.objects.get(provider=provider, name=name)
    if step.action == REPLACE:
        providers.replace_secret(actor, credential=credential, **where)
    elif step.action == ACTIVATE:
        providers.activate_credential(
            actor, credential=credential, unprobed_reason="declared in an applied file"
        )


def _model(actor: Actor, step: Step) -> None:
    values = dict(step.values)
    if "provider" in values:
        values["provider"] = Provider.objects.get(slug=values["provider"])
    if step.action == CREATE:
        providers.create_model(actor, slug=step.key, **values)
        return
    model = Model.objects.get(slug=step.key)
    if step.action == BRING_BACK:
        providers.unarchive_model(actor, model=model)
    elif step.action == CHANGE:
        providers.pin_model(actor, model=model, changes=values)
    elif step.action == PRICE:
        providers.add_price(actor, model=model, source="applied file", **values)


def _route(actor: Actor, step: Step) -> None:
    values = dict(step.values)
    models = Model.objects.in_bulk(list(models_of(values)), field_name="slug")
    targets, fallbacks = values.pop("targets", None), values.pop("fallbacks", None)
    by_class = values.pop("fallbacks_for", None)
    values.update({name: models[values[name]] for name in MODEL_FIELDS if values.get(name)})
    chosen = None if targets is None else [(models[slug], weight) for slug, weight in targets.items()]
    then = None if fallbacks is None else [models[slug] for slug in fallbacks]
    after = (
        None if by_class is None else {name: [models[slug] for slug in by_class[name]] for name in by_class}
    )
    if step.action == CREATE:
        providers.create_route(
            actor,
            slug=step.key,
            targets=chosen or [],
            fallbacks=then or [],
            fallbacks_for=after,
            fields=values,
        )
        return
    route = Route.objects.get(slug=step.key)
    if step.action == BRING_BACK:
        providers.unarchive_route(actor, route=route)
    elif step.action == CHANGE:
        providers.update_route(
            actor, route=route, changes=values, targets=chosen, fallbacks=then, fallbacks_for=after
        )


def _policy(actor: Actor, step: Step) -> None:
    if step.action == CREATE:
        policies.create_policy(actor, slug=step.key, **step.values)
        return
    policy = Policy.objects.get(slug=step.key)
    if step.action == BRING_BACK:
        policies.unarchive_policy(actor, policy=policy)
    elif step.action == CHANGE:
        values = dict(step.values)
        checks = values.pop("checks", None)
        policies.update_policy(actor, policy=policy, changes=values, checks=checks)


def _prompt(actor: Actor, step: Step) -> None:
    values = dict(step.values)
    if step.action == CREATE:
        project = Project.objects.get(slug=values["project"]) if values["project"] else None
        prompts.create_prompt(actor, **{**values, "project": project})
        return
    project_slug, _, slug = step.key.rpartition("/")
    prompt = Prompt.objects.get(slug=slug, project__slug=project_slug or None)
    if step.action == BRING_BACK:
        prompts.unarchive_prompt(actor, prompt=prompt)
    elif "version" in values:
        version = values["version"]
        prompts.add_version(actor, prompt=prompt, content=version["content"], note=version["note"])
    elif "label" in values and values["number"] is None:
        prompts.remove_label(actor, prompt=prompt, name=values["label"], reason=_DECLARED)
    elif "label" in values:
        prompts.move_label(
            actor, prompt=prompt, name=values["label"], number=values["number"], reason=_DECLARED
        )
    else:
        prompts.update_prompt(actor, prompt=prompt, changes=values)


def _tool(actor: Actor, step: Step) -> None:
    project, _, slug = step.key.partition("/")
    if step.action == CREATE:
        found = Project.objects.get(slug=project)
        tools.create_tool(
            actor, project=found, slug=slug, definition=step.values["definition"], note=_DECLARED
        )
        return
    tool = Tool.objects.get(project__slug=project, slug=slug)
    if step.action == BRING_BACK:
        tools.unarchive_tool(actor, tool=tool)
    elif step.action == CHANGE:
        tools.add_version(actor, tool=tool, definition=step.values["definition"], note=_DECLARED)


def _service_key(actor: Actor, step: Step) -> None:
    values = dict(step.values)
    if step.action == CREATE:
        access.create_service_key(actor, **{**values, "project": Project.objects.get(slug=values["project"])})
        return
    project, _, name = step.key.partition("/")
    key = ServiceKey.objects.get(project__slug=project, name=name)
    if step.action == CHANGE:
        access.update_service_key(actor, key=key, **values)
    elif step.action == ROTATE:
        access.rotate_service_key(
            actor, key=key, secret=values["secret"], reason="declared in an applied file"
        )


def _budget(actor: Actor, step: Step) -> None:
    values = dict(step.values)
    if "project" in values:
        slug = values.pop("project")
        values["project_id"] = Project.objects.get(slug=slug).pk if slug else None
    present = Budget.objects.filter(slug=step.key).first()
    kind = values.get("scope_kind", present.scope_kind if present else None)
    if kind == KEY and "scope_value" in values:
        project, _, name = values["scope_value"].partition("/")
        values["scope_value"] = str(ServiceKey.objects.get(project__slug=project, name=name).pk)
    if step.action == CREATE:
        budgets.create_budget(actor, slug=step.key, **values)
    elif step.action == CHANGE and present is not None:
        budgets.update_budget(actor, budget_id=present.pk, **values)


_DO: dict[str, Callable[[Actor, Step], None]] = {
    "project": _project,
    DEFAULT_ROUTE: _default_route,
    "provider": _provider,
    "credential": _credential,
    "model": _model,
    "policy": _policy,
    "route": _route,
    "prompt": _prompt,
    "tool": _tool,
    "service key": _service_key,
    "budget": _budget,
    PUBLISHING: _publishing,
    SLO: carry_slo,
    RULE: carry_rule,
    CHANNEL: carry_channel,
}
