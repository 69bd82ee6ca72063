"""Replays: a call of a service asked again, as a new call of the project that its playground makes, by the road of services."""

from __future__ import annotations

import logging
import socket
import threading
import time
from datetime import timedelta
from functools import partial
from http.client import HTTPException
from uuid import UUID

from django.conf import settings
from django.db import close_old_connections, transaction
from django.utils import timezone

from llmops.access.models import Project
from llmops.audit.services import record
from llmops.base.data_plane import post
from llmops.base.locks import lock
from llmops.core.actors import Actor
from llmops.core.digests import digest
from llmops.core.errors import Conflict, InvalidRequest, RateLimited
from llmops.playground.again import Again, request_again
from llmops.playground.reading import KEY_TRAVELS_S, MOST_SECONDS
from llmops.playground.selectors import callables
from llmops.playground.services.keys import key_in_use
from llmops.usage.models import Call, Replay
from llmops.usage.texts import opened

log = logging.getLogger(__name__)

#: So much of an answer is read at a time, and forgotten: data planes keep what the project has kept.
_PIECE = 65_536


@transaction.atomic
def replay_call(
    actor: Actor, *, call: Call, replay_id: UUID, model: str, version: int | None = None
) -> Replay:
    """Ask again what ``call`` asked, of another route or model, or with another version of its prompt; once for each ``replay_id``.

    Whoever calls this has asked whether the actor may read the call's texts and use the playground of its project. Raises ``NotFound``
    when its texts are not there, ``Conflict`` when they cannot be asked again, ``InvalidRequest``, ``RateLimited``.
    """
    lock(f"playground.runs.{actor.identifier}")
    if (earlier := Replay.objects.filter(pk=replay_id).first()) is not None:
        if earlier.of_call != call.pk or earlier.made_by_id != actor.identifier:
            raise Conflict("id: this id is in use; choose another one.", param="id")
        return earlier
    _bound(actor)
    project = Project.objects.get(pk=call.project_id)
    texts = opened(call)
    if model not in {one.name for one in callables(project)}:
        raise InvalidRequest(
            f"model: {model[:63]} is not live, or this project's playground may not call it. Choose one of the list.",
            param="model",
        )
    again = request_again(call.endpoint, texts.request, model=model, version=version, streamed=call.streamed)
    key, secret = key_in_use(project)
    replay = Replay(
        id=replay_id,
        of_call=call.pk,
        project_id=project.pk,
        key_id=key.service_key_id,
        model=model,
        prompt_version=version,
        made_by=actor.name[:200],
        made_by_id=actor.identifier,
        made_at=timezone.now(),
    )
    replay.save(force_insert=True)
    new = timezone.now() - key.created_at
    send = partial(
        _begin,
        replay,
        again,
        secret,
        KEY_TRAVELS_S if new.total_seconds() < 30 else 0.0,
        f"playground:{actor.identifier}",
    )
    transaction.on_commit(send)
    record(
        actor,
        action="call.replayed",
        object_type="usage.call",
        object_id=call.pk,
        object_name=str(call.pk),
        project_id=project.pk,
        after={
            "replay": str(replay.pk),
            "model": model,
            "prompt_version": version,
            "digest": digest(again.body),
            "left_out": list(again.left_out),
        },
    )
    return replay


def _bound(actor: Actor) -> None:
    most = settings.PLAYGROUND_RUNS_PER_MINUTE
    since = timezone.now() - timedelta(minutes=1)
    if Replay.objects.filter(made_by_id=actor.identifier, made_at__gt=since).count() >= most:
        raise RateLimited(
            f"You have replayed {most} calls within a minute, which is as many as one person may. Wait a moment, then go on.",
            retry_after=20,
        )


def _begin(replay: Replay, again: Again, secret: str, key_travels_s: float, user: str) -> None:
    work = partial(_send, replay, again, secret, key_travels_s, user)
    threading.Thread(target=work, name="playground-replay", daemon=True).start()


def _send(replay: Replay, again: Again, secret: str, key_travels_s: float, user: str) -> None:
    """The call, sent once and read to its end. Only a key that data planes cannot know yet is presented anew, which costs nothing."""
    problem = ""
    headers = {
        "x-request-id": replay.request,
        "x-llmops-feature": "replay",
        "x-llmops-user": user,
        "x-llmops-tags": f"replay,replay-of:{replay.of_call}",
        "x-llmops-keep-texts": "true",
        # To be asked, and not to be given an answer that is kept.
        "cache-control": "no-store",
    }
    until = time.monotonic() + key_travels_s
    try:
        while True:
            response = post(
                settings.GATEWAY_URL,
                again.path,
                again.body,
                secret=secret,
                headers=headers,
                timeout_s=MOST_SECONDS,
                opened=_opened,
            )
            if response.status != 401 or time.monotonic() >= until:
                break
            response.close()
            time.sleep(0.2)
        while response.read(_PIECE):
            pass
        if response.status == 401:
            problem = "The data plane refused the playground's key. Somebody may have just revoked it."
    except (OSError, HTTPException) as error:
        log.warning("replay %s: %s", replay.pk, error)
        problem = "The connection to the data plane broke, or could not be made. If the call was made, its story says what became of it."
    except Exception:
        log.exception("replay %s could not be made", replay.pk)
        problem = "A fault in the console itself. Nothing was sent, or its story says what became of it."
    if problem:
        try:
            close_old_connections()
            Replay.objects.filter(pk=replay.pk).update(problem=problem)
        finally:
            close_old_connections()


def _opened(_: socket.socket) -> None:
    return None
