"""Policies on the lines of a batch: what they would do to each as a call by itself, before the batch is made.

A file at a provider cannot be changed line by line, and nobody sees the answers before the file with them is there. So a line
that is to be redacted is refused like one that is blocked, and so is every batch whose answers must be checked.
"""

from __future__ import annotations

import msgspec

from llmops.core.errors import ApprovalRequired, InvalidRequest, PolicyBlocked
from llmops.core.stopping import go_on
from llmops.core.verdicts import AFTER, ALLOW, BEFORE, REDACT
from llmops.gateway.call import Call
from llmops.gateway.endpoints.base import Raw
from llmops.gateway.kept.places import Place
from llmops.gateway.policing.calls import found_by, refuse
from llmops.gateway.policing.state import Policing
from llmops.gateway.policing.texts import asked_places
from llmops.policies.checks.base import Asked
from llmops.policies.decisions import Decision, Placeholders, Rule
from llmops.policies.engine import Guard

#: Lines that are looked at together, beside the loop, in bytes.
_TOGETHER = 256 * 1024
#: What no text comes out of; moderation models are shown what nobody has judged yet.
_MODERATIONS = "/v1/moderations"
_WITHOUT_ANSWERS = frozenset(("/v1/embeddings", _MODERATIONS))


class _Line(msgspec.Struct):
    body: dict[str, Raw]


_decode_line = msgspec.json.Decoder(_Line).decode


class Lines:
    """The lines of the file ``param`` names; ``add`` each, then ``end``. Both raise for a line that may not go."""

    def __init__(self, call: Call, place: Place, endpoint: str, param: str) -> None:
        self._call = call
        self._place = place
        self._endpoint = endpoint
        self._param = param
        self._guards: dict[str, tuple[Guard, ...]] = {}
        self._waiting: list[tuple[int, bytes, tuple[Guard, ...]]] = []
        self._bytes = 0

    async def add(self, number: int, line: bytes, model: str) -> None:
        """``model`` is the provider's own name. Raises ``PolicyBlocked``, ``ApprovalRequired``, ``InvalidRequest``."""
        guards = self._guards.get(model)
        if guards is None:
            guards = self._guards[model] = self._guards_of(model)
        if guards:
            self._waiting.append((number, line, guards))
            self._bytes += len(line)
            if self._bytes > _TOGETHER:
                await self.end()

    async def end(self) -> None:
        waiting, size = self._waiting, self._bytes
        self._waiting, self._bytes = [], 0
        if waiting:
            await self._call.plane.off_loop(lambda: self._look_at(waiting), size=size)

    def _guards_of(self, model: str) -> tuple[Guard, ...]:
        """What holds for calls of a model, by whatever name and route."""
        view = self._call.view
        if not view.snapshot.policies or self._endpoint == _MODERATIONS:
            return ()
        found = [
            view.guard_of_kept(slug)
            for slug, target in view.targets.items()
            if target.provider.slug == self._place.provider.slug and target.entry.upstream_model == model
        ]
        guards = tuple(guard for guard in found if guard is not None)
        for guard in guards:
            changing = [rule for rule in guard.after if rule.check.action != ALLOW]
            if changing and self._endpoint not in _WITHOUT_ANSWERS:
                raise self._impossible(changing[0], "checks the answers", AFTER)
            asking = [rule for rule in guard.remote(BEFORE) if rule.check.action != ALLOW]
            if asking:
                raise self._impossible(asking[0], "asks another model about each request", BEFORE)
        return guards

    def _impossible(self, rule: Rule, does: str, stage: str) -> PolicyBlocked:
        return PolicyBlocked(
            f"The policy {rule.policy!r} {does}, which cannot be done for a batch. Make the calls one by one.",
            param=self._param,
            data={"policy": rule.policy, "version": rule.version, "check": rule.check.kind, "stage": stage},
        )

    def _look_at(self, lines: list[tuple[int, bytes, tuple[Guard, ...]]]) -> None:
        for one in lines:
            go_on()
            self._look(*one)

    def _look(self, number: int, line: bytes, guards: tuple[Guard, ...]) -> None:
        try:
            places, messages = asked_places(_decode_line(line).body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise InvalidRequest(
                f"{self._param}: the texts of line {number} cannot be read: no valid JSON, or nested too deeply.",
                param=self._param,
            ) from None
        asked = Asked([place.text for place in places], messages)
        for guard in guards:
            decision = guard.check_before(asked, Placeholders())
            if decision.verdicts:
                self._settle_on(number, guard, decision)

    def _settle_on(self, number: int, guard: Guard, decision: Decision) -> None:
        call = self._call
        state = call.policing = call.policing or Policing(guard)
        state.add(decision.verdicts)
        try:
            refuse(decision)
        except (PolicyBlocked, ApprovalRequired) as refusal:
            # The same error, with the line in front.
            raise type(refusal)(
                f"{self._param}: line {number}: {refusal.message}", param=self._param, data=refusal.data
            ) from None
        if decision.action == REDACT:
            verdict = next(one for one in decision.verdicts if one.action == REDACT)
            raise PolicyBlocked(
                f"{self._param}: line {number}: the policy {verdict.policy!r} takes something out of this request "
                f"({found_by(verdict)}), and a file cannot be changed here. Take that out and upload it again.",
                param=self._param,
                data={"policy": verdict.policy, "version": verdict.version, "check": verdict.check},
            )
