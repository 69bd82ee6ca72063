"""Runs as the API tells them, and what it takes."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from rest_framework import serializers

from llmops.access.api import ProjectField
from llmops.runs.conversation import CALL, NOTE, RESULT, TURN
from llmops.runs.costing import cost_of, costs_of
from llmops.runs.models import Run, Step
from llmops.runs.rules import MODES, MOST_SECONDS, MOST_TURNS
from llmops.runs.sealed import opened, step_identity
from llmops.runs.selectors import answer_of, waited_for


class PromptBody(serializers.Serializer[Any]):
    id = serializers.CharField(help_text="The prompt's name.")
    version = serializers.CharField(required=False, help_text="A number or a label; left out: production.")
    variables = serializers.DictField(required=False)


class BoundsBody(serializers.Serializer[Any]):
    turns = serializers.IntegerField(required=False, min_value=1, max_value=MOST_TURNS)
    seconds = serializers.IntegerField(
        required=False,
        min_value=1,
        max_value=MOST_SECONDS,
        help_text="Of work; waiting for people does not count.",
    )
    cost_nano = serializers.IntegerField(
        required=False, min_value=1, help_text="Nanodollars. No turn may cost more than what is left of them."
    )


class WebhookBody(serializers.Serializer[Any]):
    url = serializers.CharField(help_text="https, of a public address.")
    secret = serializers.CharField(
        required=False, help_text="whsec_ and base64; left out: one is made and answered."
    )


class RunBody(serializers.Serializer[Any]):
    """What a run is asked for. What is taken exactly is in ``llmops/runs/rules.py``."""

    project = ProjectField(required=False, help_text="Left out: the project of the key.")
    prompt = PromptBody(required=False)
    messages = serializers.ListField(child=serializers.DictField(), required=False)
    model = serializers.CharField(
        required=False, help_text="A route or a model; left out: the prompt's, the project's."
    )
    tools = serializers.ListField(
        child=serializers.CharField(), required=False, help_text="Names of tools of the project."
    )
    output = serializers.DictField(required=False, help_text="JSON Schema that the answer has to follow.")
    bounds = BoundsBody(required=False)
    parameters = serializers.DictField(
        required=False, help_text="temperature, top_p, max_completion_tokens, seed, reasoning_effort."
    )
    mode = serializers.ChoiceField(choices=MODES, required=False)
    webhook = WebhookBody(required=False)
    feature = serializers.CharField(required=False)
    user = serializers.CharField(
        required=False, help_text="The end user, for budgets; only a digest is kept."
    )
    on_behalf_of = serializers.CharField(
        required=False, help_text="A username, who may then not approve what it asks for."
    )


class RunSerializer(serializers.ModelSerializer[Run]):
    project = ProjectField(read_only=True)
    bounds = serializers.SerializerMethodField()
    cost_nano = serializers.SerializerMethodField(
        help_text="Nanodollars that its calls cost, as the ledger has them: failed attempts and moderation included."
    )
    answer = serializers.SerializerMethodField(help_text="Text; null while there is none.")
    output = serializers.SerializerMethodField(
        help_text="The answer, read, where there is an output contract."
    )
    error = serializers.SerializerMethodField()
    waits_for = serializers.SerializerMethodField(help_text="Actions of which something is still to come.")

    class Meta:
        model = Run
        fields = (
            "id", "project", "state", "mode", "prompt_name", "prompt_version", "model", "tools", "bounds", "turns",
            "cost_nano", "answer", "output", "error", "waits_for", "requested_by_name", "webhook_url", "webhook_state",
            "created_at", "finished_at",
        )  # fmt: skip
        read_only_fields = fields

    def get_bounds(self, row: Run) -> dict[str, Any]:
        return {"turns": row.max_turns, "seconds": row.max_seconds, "cost_nano": row.max_cost_nano}

    def get_cost_nano(self, row: Run) -> int:
        return cost_of(row)

    def get_answer(self, row: Run) -> str | None:
        found: str | None = answer_of(row).get("text")
        return found

    def get_output(self, row: Run) -> Any:
        return answer_of(row).get("output")

    def get_error(self, row: Run) -> dict[str, str | None] | None:
        if not row.error_code:
            return None
        return {"code": row.error_code, "message": row.error_message, "param": row.error_param or None}

    def get_waits_for(self, row: Run) -> list[dict[str, Any]]:
        if row.over:
            return []
        return [
            {
                "action": str(one.pk),
                "tool": one.tool.slug,
                "says": one.says,
                "risk": one.risk,
                "state": one.state,
            }
            for one in waited_for(row)
        ]


class _Lines(serializers.ListSerializer[Run]):
    """What all of them cost is looked up at once."""

    def to_representation(self, data: Any) -> list[Any]:
        rows = list(data.all() if hasattr(data, "all") else data)
        assert isinstance(self.child, RunLine)
        self.child.costs = costs_of(rows)
        return super().to_representation(rows)


class RunLine(RunSerializer):
    """A run in a list: without texts."""

    costs: dict[UUID, int] | None = None

    def get_cost_nano(self, row: Run) -> int:
        return self.costs[row.pk] if self.costs is not None else cost_of(row)

    class Meta(RunSerializer.Meta):
        list_serializer_class = _Lines
        fields = tuple(  # type: ignore[assignment]
            name for name in RunSerializer.Meta.fields if name not in ("answer", "output", "waits_for")
        )


def told_step(step: Step) -> dict[str, Any]:
    """A step as the events of a run and its page have it."""
    content = opened(step.sealed, identity=step_identity(step.pk))
    told: dict[str, Any] = {"n": step.n, "kind": step.kind, "turn": step.turn, "at": step.at.isoformat()}
    gone = content is None
    content = content or {}
    if step.kind == TURN:
        message = content.get("message") or {}
        told |= {
            "model": step.what,
            "finish": step.outcome,
            "call": str(step.call_id) if step.call_id else None,
            "content": message.get("content"),
            "tool_calls": message.get("tool_calls", []),
            "input_tokens": step.input_tokens,
            "output_tokens": step.output_tokens,
            "cost_nano": step.cost_nano,
        }
    elif step.kind in (CALL, RESULT):
        told |= {
            "tool": step.what,
            "place": step.place,
            "tool_call_id": content.get("id"),
            "action": str(step.action_id) if step.action_id else None,
            "outcome": step.outcome,
        }
        told |= (
            {"arguments": content.get("arguments"), "says": content.get("says")}
            if step.kind == CALL
            else {"content": content.get("content")}
        )
    elif step.kind == NOTE:
        told |= {"what": step.what, "text": content.get("text"), "outcome": step.outcome}
    if step.took_us is not None:
        told["took_ms"] = round(step.took_us / 1000)
    if gone:
        told["removed"] = True
    return told
