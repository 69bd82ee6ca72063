"""What a call said and was answered, kept for people, as a data plane would have left it."""

from __future__ import annotations

import json
from typing import Any

from llmops.access.models import Project
from llmops.base.master_keys import master_keys
from llmops.usage.models import Call, KeptAnswer, KeptText
from llmops.usage.records import kept_answer_identity, kept_text_identity


def open_project(project: Any, *, percent: int = 100, days: int = 7) -> None:
    Project.objects.filter(pk=project.pk).update(
        keep_texts_percent=percent, keep_texts_days=days, keep_texts_readable=True
    )


def keep_texts(
    call: Call,
    asked: str = "Say hello",
    answered: str | None = "Hello",
    *,
    request: dict[str, Any] | None = None,
    **told: Any,
) -> None:
    """``request`` None: one that asks ``asked``."""
    members = {"messages": [{"role": "user", "content": asked}]} if request is None else request
    texts = {"texts": [["user", asked]], "request": members, "cut": False, "changed": False, **told}
    at = {"call_id": call.pk, "project_id": call.project_id, "started_at": call.started_at}
    KeptText.objects.create(
        **at,
        route=call.route,
        readable=True,
        sealed=master_keys().seal(json.dumps(texts), identity=kept_text_identity(call.pk)),
    )
    if answered is not None:
        said = {"parts": [["text", answered]], "cut": False}
        KeptAnswer.objects.create(
            **at, sealed=master_keys().seal(json.dumps(said), identity=kept_answer_identity(call.pk))
        )
