"""Prompt injection by heuristics with points: what tries to speak over the instructions that a model was given.

A heuristic is a hurdle, no wall; each signal counts once for a text, and the sum decides.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

from msgspec import Meta

from llmops.core.verdicts import ALLOW, BEFORE, BLOCK, REQUIRE_APPROVAL, Finding
from llmops.policies.checks.base import Asked, AskedCheck, Role, Settings
from llmops.policies.patterns import Pattern

_ANY = r"(?:\s{1,3}[a-z]{1,12}){0,3}\s{1,3}"
_EARLIER = (
    r"(?:previous|prior|above|earlier|preceding|former|original|initial|system|existing|given|your|all)"
)
_ORDERS = r"(?:instructions?|prompts?|rules?|directions?|directives?|guidelines?|commands?|guardrails?|restrictions?|orders?)"
#: Signal -> points and expression, without regard to case.
_SIGNALS: dict[str, tuple[int, str]] = {
    "instruction override": (
        50,
        rf"\b(?:ignore|disregard|forget|override|bypass|skip|drop)\b(?:\s{{1,3}}[a-z]{{1,12}}){{0,3}}\s{{1,3}}{_EARLIER}{_ANY}?(?:\s{{1,3}})?{_ORDERS}\b"
        r"|\bignorier(?:e|en sie)\b[^.]{0,40}\b(?:anweisungen|vorgaben|regeln)\b"
        r"|\bignore[rz]?\b[^.]{0,40}\b(?:instructions|consignes) (?:pr[ée]c[ée]dentes|ant[ée]rieures)\b"
        r"|\bignor(?:a|e) (?:todas )?(?:las |tus )?instrucciones\b"
        r"|\bnew (?:system )?instructions?\s{0,3}:",
    ),
    "persona": (
        40,
        r"\byou are (?:now|no longer)\b[^.\n]{0,40}\b(?:dan|unrestricted|unfiltered|jailbroken|developer mode|without (?:any )?(?:restrictions|rules|limits|filters))\b"
        r"|\bdo anything now\b|\bjailbreak(?:ed)? mode\b|\bdeveloper mode (?:enabled|on|activated)\b"
        r"|\b(?:act|behave|respond|pretend)\b[^.\n]{0,40}\b(?:no|without(?: any)?) (?:restrictions|rules|limits|filters|guidelines|guardrails)\b",
    ),
    "prompt disclosure": (
        40,
        r"\b(?:reveal|print|show|repeat|output|display|tell|give|dump|leak)\b(?:\s{1,3}(?:me|us|out|back|verbatim))?\s{1,3}(?:your|the)\s{1,3}(?:entire |full |complete |exact |whole )?"
        r"(?:system|initial|hidden|original|secret|internal)\s{1,3}(?:prompt|instructions|message|rules)\b"
        r"|\brepeat (?:everything|all|the words|the text) above\b",
    ),
    "role markers": (
        30,
        r"(?m)^[ \t>#*]{0,6}(?:system|assistant|developer)(?: prompt| message)?[ \t]{0,3}:[ \t]{0,3}\S"
        r"|\[/?(?:system|assistant)\]|<\|(?:im_start|im_end|system|assistant|start_header_id)\|>|<</?sys>>|\[/?inst\]"
        r"|</?(?:system|assistant)(?:_prompt|_message)?>|#{2,6}\s{0,3}(?:system|new) (?:prompt|instructions?)\b",
    ),
    "hidden text": (
        40,
        # Tag characters (not those of a flag), overrides of the writing direction, runs of characters without width.
        r"[\x{E0020}-\x{E007E}]{8,200}|[\x{202D}\x{202E}]|[\x{200B}\x{2060}-\x{2064}\x{FEFF}]{4,200}",
    ),
    "exfiltration": (
        40,
        r"!\[[^\]\n]{0,200}\]\(https?://[^\s)]{1,300}[?&][a-z0-9_.-]{1,40}=[^\s)]{0,300}\)"
        r"|\b(?:send|post|forward|upload|exfiltrate|transmit|append)\b[^.\n]{0,60}\b(?:conversation|chat|history|messages|secrets?|passwords?|credentials?|keys?|data|everything|prompt)\b[^.\n]{0,40}\bto\b[^.\n]{0,20}(?:https?://|[a-z0-9-]{2,60}\.(?:com|net|org|io|xyz|ru)\b)",
    ),
}
_ENCODED = Pattern(r"[A-Za-z0-9+/]{120,1000}={0,2}")
_ENCODED_POINTS = 20
#: How much of hidden text is looked into; a text with more of it has earned its points already.
_MAX_DECODED = 20


class InjectionSettings(Settings, frozen=True, kw_only=True):
    threshold: Annotated[
        int,
        Meta(
            ge=10,
            le=300,
            description="Points from which a text counts: instruction override 50; persona, prompt disclosure, hidden text, "
            "exfiltration 40; role markers 30; long base64 20.",
        ),
    ] = 50
    roles: Annotated[
        tuple[Role, ...],
        Meta(
            min_length=1,
            description="Messages of these roles are looked at: those that others than the developer write.",
        ),
    ] = ("user", "tool")


class Injection(AskedCheck):
    kind = "injection"
    title = "Prompt injection"
    summary = (
        "Gives points for what tries to speak over a model's instructions: overrides, personas, role markers, hidden text, "
        "encoded text, addresses that carry data away."
    )
    actions: ClassVar = {BEFORE: (ALLOW, REQUIRE_APPROVAL, BLOCK)}
    settings_type = InjectionSettings

    def __init__(self, settings: Any, stage: str, action: str) -> None:
        super().__init__(settings, stage, action)
        self._signals = signals()
        # What base64 hides is behind the expression of base64 itself.
        self.hint = "|".join((*(pattern.wide for _, _, pattern in self._signals), _ENCODED.wide))

    def judge_asked(self, asked: Asked) -> list[Finding]:
        found = []
        for one in asked.texts:
            if one.role not in self.settings.roles:
                continue
            points = score(self._signals, one.text.encode("utf-8", "surrogatepass"))
            if sum(points.values()) >= self.settings.threshold:
                found += [Finding(name, one.where) for name in points]
        return found


Signals = Sequence[tuple[str, int, Pattern]]


def signals() -> Signals:
    return [
        (name, points, Pattern(expression, ignore_case=True))
        for name, (points, expression) in _SIGNALS.items()
    ]


def score(found: Signals, data: bytes) -> dict[str, int]:
    """Points by signal. What base64 hides is judged as if it were written out."""
    points = {name: worth for name, worth, pattern in found if pattern.search(data) is not None}
    for number, match in enumerate(_ENCODED.matches(data)):
        if number >= _MAX_DECODED:
            break
        hidden = _decoded(match.group())
        if hidden is None:
            continue
        points["encoded text"] = _ENCODED_POINTS
        points |= {name: worth for name, worth, pattern in found if pattern.search(hidden) is not None}
    return points


def _decoded(encoded: bytes) -> bytes | None:
    """What base64 says, when it says text."""
    encoded = encoded.rstrip(b"=")
    try:
        plain = base64.b64decode(encoded[: len(encoded) // 4 * 4])
    except (binascii.Error, ValueError):
        return None
    printable = sum(32 <= byte < 127 or byte in (9, 10, 13) for byte in plain)
    return plain if plain and printable >= 0.95 * len(plain) else None
