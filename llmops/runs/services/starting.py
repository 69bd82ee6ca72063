"""Starting a run: everything that can be told to be wrong is told now, and what it refers to is pinned."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec
from django.conf import settings
from django.db import IntegrityError, transaction

from llmops.access.models import Project, ServiceKey
from llmops.access.selectors import powers_of_actor, why_not_in_force
from llmops.audit.services import record_about
from llmops.base.clock import database_now
from llmops.core.actors import Actor
from llmops.core.digests import digest
from llmops.core.errors import Conflict, InvalidRequest, NotFound, PermissionDenied
from llmops.core.texts import text_problem
from llmops.prompts.published import Served, served
from llmops.runs.models import Run
from llmops.runs.rules import Asked
from llmops.runs.sealed import asked_identity, opened, seal
from llmops.runs.services.waking import begin_with, go_on
from llmops.serving.selectors import live_document, live_revision
from llmops.serving.snapshot import RevisionDocument
from llmops.tools.models import Tool
from llmops.tools.selectors import lacks_secret, offered
from llmops.tools.services import check_account


def start_run(
    actor: Actor, *, project: Project, asked: Asked, idempotency_key: str = "", inline: bool = False
) -> tuple[Run, str]:
    """A run that waits to be worked on, and the secret that signs its webhook (empty: it has none).

    The same ``idempotency_key`` of the same requester gives the same run. ``inline``: the caller works on it itself; no worker is
    told, unless the caller does not begin within some seconds. Raises ``InvalidRequest`` and ``NotFound`` that name the
    member, ``PermissionDenied``, ``Conflict`` for a key that was used for another run.
    """
    if not powers_of_actor(actor).allow("run.start", project.pk):
        raise PermissionDenied(f"You may not start runs in the project {project.slug}.")
    if why := why_not_in_force(actor):
        raise PermissionDenied(f"{why} It starts no run until it is in force again.")
    if project.archived_at is not None:
        raise Conflict(f"The project {project.slug} is archived; restore it first.", param="project")
    idempotency_key = _key(idempotency_key)
    told = msgspec.to_builtins(asked)
    wanted = digest({**told, "webhook": asked.webhook.url if asked.webhook else None})
    try:
        with transaction.atomic():
            if earlier := _earlier(actor, project, wanted, idempotency_key):
                return earlier, _secret_of(earlier)
            return _made(actor, project, asked, told, wanted, idempotency_key, inline)
    except IntegrityError:
        # The same key at the same moment: whoever came second gets what the first made.
        if idempotency_key and (earlier := _earlier(actor, project, wanted, idempotency_key)):
            return earlier, _secret_of(earlier)
        raise


def _made(
    actor: Actor, project: Project, asked: Asked, told: Any, wanted: str, idempotency_key: str, inline: bool
) -> tuple[Run, str]:
    document = live_document(live_revision())
    version = _version(document, project, asked)
    model = asked.model or (version.route if version else "") or project.default_route
    _check_model(document, actor, model)
    tools = _tools(project, asked)
    check_account(actor, project, asked.on_behalf_of.strip())
    secret = _webhook(asked)
    now = database_now()
    run = Run(
        project=project,
        mode=asked.mode,
        digest=wanted,
        idempotency_key=idempotency_key,
        requested_by_kind=actor.kind,
        requested_by_id=actor.identifier[:64],
        requested_by_name=actor.name[:200],
        behalf_of=asked.on_behalf_of,
        prompt_name=asked.prompt.id if asked.prompt else "",
        prompt_version=version.number if version else None,
        model=model,
        tools=asked.tools,
        max_turns=asked.bounds.turns,
        max_seconds=asked.bounds.seconds,
        max_cost_nano=asked.bounds.cost_nano,
        left_ms=asked.bounds.seconds * 1000,
        handed_at=now,
        webhook_url=asked.webhook.url if asked.webhook else "",
    )
    kept = {"asked": told, "offered": offered(tools), "webhook_secret": secret}
    run.sealed = seal(kept, identity=asked_identity(run.pk))
    run.save(force_insert=True)
    if not inline:
        begin_with(run.pk)
    record_about(
        actor,
        run,
        action="run.started",
        after={
            "prompt": run.prompt_name or None,
            "version": run.prompt_version,
            "model": run.model,
            "tools": run.tools,
            "digest": run.digest,
        },
    )
    return run, secret


def hand_on(run: Run) -> None:
    """Tell a worker of a run that was to be worked on by whoever started it."""
    go_on(run.pk)


def _version(document: RevisionDocument, project: Project, asked: Asked) -> Served | None:
    """The published version that is meant, whose number the run keeps: a label that moves changes nothing of a run."""
    if asked.prompt is None:
        return None
    by_name = {(one.project, one.slug): one for one in document.prompts}
    entry = by_name.get((project.slug, asked.prompt.id)) or by_name.get(("", asked.prompt.id))
    if entry is None:
        raise NotFound(
            f"prompt.id: there is no prompt {asked.prompt.id[:63]!r} that is published for this project.",
            param="prompt.id",
            code="prompt_not_found",
        )
    found = served(entry, asked.prompt.version)
    found.compiled.render(asked.prompt.variables, path="prompt.variables")
    if asked.output is not None and found.response_format is not None:
        raise InvalidRequest(
            "output: the prompt has an output contract of its own; leave this out.", param="output"
        )
    return found


def _check_model(document: RevisionDocument, actor: Actor, name: str) -> None:
    """A run calls with a key of the console, so what the requester's own key may call is looked at here."""
    if not name:
        raise InvalidRequest(
            "model: name a route or a model; neither the prompt nor the project has one.", param="model"
        )
    routes, models = {one.slug for one in document.routes}, {one.slug for one in document.models}
    key = ServiceKey.objects.filter(pk=actor.identifier).first() if actor.kind == "service_key" else None
    if name in routes:
        allowed = key.allowed_routes if key else ["*"]
    elif name in models:
        allowed = key.allowed_models if key else ["*"]
    else:
        raise NotFound(
            f"model: there is no route or model {name[:100]!r} that is published.",
            param="model",
            code="model_not_found",
        )
    if "*" not in allowed and name not in allowed:
        raise PermissionDenied(f"model: this key may not call {name[:100]}.", param="model")


def _tools(project: Project, asked: Asked) -> list[Tool]:
    rows = {
        one.slug: one
        for one in Tool.objects.filter(project=project, slug__in=asked.tools, archived_at=None)
        .exclude(current=None)
        .select_related("current")
    }
    for place, slug in enumerate(asked.tools):
        if slug not in rows:
            raise NotFound(
                f"tools[{place}]: there is no tool {slug!r} in the project {project.slug}.",
                param=f"tools[{place}]",
            )
        if lacks_secret(rows[slug]):
            raise Conflict(
                f"tools[{place}]: {slug} cannot be carried out yet: it has no secret that signs what its webhook gets. Make one on its "
                "page, or leave the tool out.",
                param=f"tools[{place}]",
                code="tool_not_signed",
            )
    return [rows[slug] for slug in asked.tools]


def _webhook(asked: Asked) -> str:
    if asked.webhook is None:
        return ""
    # It brings aiohttp, which a process that serves pages does without as a rule.
    from llmops.tools.executors.webhook import new_secret, url_problem

    if problem := url_problem(asked.webhook.url, allow_private=settings.RUN_WEBHOOKS_PRIVATE):
        raise InvalidRequest(
            f"webhook.url: {problem.replace('on the tool', 'in the settings')}.", param="webhook.url"
        )
    if not asked.webhook.secret:
        return new_secret()
    try:
        prefix, _, rest = asked.webhook.secret.partition("_")
        size = len(base64.b64decode(rest, validate=True)) if prefix == "whsec" else 0
    except binascii.Error:
        size = 0
    if not 24 <= size <= 64:
        raise InvalidRequest(
            "webhook.secret: whsec_ and the base64 of 24 to 64 random bytes; or leave it out, and one is made.",
            param="webhook.secret",
        )
    return asked.webhook.secret


def _secret_of(run: Run) -> str:
    kept = opened(run.sealed, identity=asked_identity(run.pk)) or {}
    return str(kept.get("webhook_secret", ""))


def _earlier(actor: Actor, project: Project, wanted: str, idempotency_key: str) -> Run | None:
    if not idempotency_key:
        return None
    found = Run.objects.filter(
        project=project,
        requested_by_kind=actor.kind,
        requested_by_id=actor.identifier[:64],
        idempotency_key=idempotency_key,
    ).first()
    if found is not None and found.digest != wanted:
        raise Conflict(
            "This Idempotency-Key was used for another run. Use a new one for each run.",
            param="Idempotency-Key",
        )
    return found


def _key(value: str) -> str:
    value = value.strip()
    if len(value) > 255 or text_problem(value):
        raise InvalidRequest("Idempotency-Key: at most 255 characters on one line.", param="Idempotency-Key")
    return value
