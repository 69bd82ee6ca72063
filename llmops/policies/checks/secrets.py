"""Secrets in what is asked or answered: key shapes as published by their makers (November 2026), and values that are
assigned to something called a password, secret or token and look random."""

from __future__ import annotations

from collections import Counter
from math import log2
from typing import Annotated, Any, Literal, get_args

from msgspec import Meta

from llmops.policies.checks.base import FINDS_PLACES, Span, TextCheck, TextSettings
from llmops.policies.patterns import Pattern, Shapes, char_before, is_word

Kind = Literal[
    "openai_key",
    "anthropic_key",
    "aws_key_id",
    "github_token",
    "slack_token",
    "google_key",
    "jwt",
    "private_key",
    "other_key",
    "assigned_secret",
]
KINDS: tuple[str, ...] = get_args(Kind)

_ASSIGN = (
    r"(?i:password|passwd|pwd|passphrase|secret|secret[_-]?key|token|api[_-]?key|apikey|access[_-]?key|client[_-]?secret"
    r"|auth[_-]?key|private[_-]?key|bearer)[\"'`]?[ \t]{0,3}(?:=>|:=|[:= ])[ \t]{0,3}[\"'`]?"
)
#: Kind -> its shape. A shape is bounded; ``_LONG`` says what goes on for longer.
_SHAPES = {
    "anthropic_key": r"sk-ant-[A-Za-z0-9]{1,10}-[A-Za-z0-9_-]{20,200}",
    "openai_key": r"sk-(?:proj-|svcacct-|admin-|None-)?[A-Za-z0-9_-]{20,250}",
    "aws_key_id": r"(?:AKIA|ASIA|ABIA|ACCA)[0-9A-Z]{16}",
    "github_token": r"gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{40,255}",
    "slack_token": r"xox[abeoprs]-[A-Za-z0-9-]{10,250}|xapp-[0-9]-[A-Za-z0-9-]{10,250}",
    "google_key": r"AIza[0-9A-Za-z_-]{35}",
    "jwt": r"eyJ[A-Za-z0-9_-]{10,500}\.eyJ[A-Za-z0-9_-]{8}",
    "private_key": r"-----BEGIN (?:[A-Z0-9]{2,20} ){0,4}PRIVATE KEY(?: BLOCK)?-----",
    "other_key": (
        r"llmops_[a-z0-9]{8}_[A-Za-z0-9_-]{20,100}|hvs\.[A-Za-z0-9_-]{20,250}|hf_[A-Za-z0-9]{30,60}|glpat-[A-Za-z0-9_-]{20,60}"
        r"|(?:sk|rk)_(?:live|test)_[A-Za-z0-9]{20,250}|npm_[A-Za-z0-9]{36}|SG\.[A-Za-z0-9_-]{20,24}\.[A-Za-z0-9_-]{40,46}"
    ),
    "assigned_secret": _ASSIGN + r"[A-Za-z0-9_~!@#$%^&*+./=-]{12,200}",
}
#: What a match of a kind goes on over, and for how many bytes at most.
_TOKEN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-.")
_BODY = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=\\ \t\r\n:,")
_LONG = {"jwt": (_TOKEN, 8_192), "private_key": (_BODY, 20_480)}
_ASSIGNED = Pattern(_ASSIGN)
_FOOTER = Pattern(r"-----END (?:[A-Z0-9]{2,20} ){0,4}PRIVATE KEY(?: BLOCK)?-----")
#: Bits per character from which a value looks random; English words have about 3 in this measure, and fewer classes.
_RANDOM = 3.2


class SecretsSettings(TextSettings, frozen=True, kw_only=True):
    kinds: Annotated[tuple[Kind, ...], Meta(description="Which kinds are looked for; empty for all.")] = ()


class Secrets(TextCheck):
    kind = "secrets"
    title = "Secrets"
    summary = (
        "Finds API keys of the usual makers, JSON Web Tokens, private keys, and random-looking values assigned to a password, "
        "secret or token."
    )
    actions = FINDS_PLACES
    settings_type = SecretsSettings

    def __init__(self, settings: Any, stage: str, action: str) -> None:
        super().__init__(settings, stage, action)
        kinds = settings.kinds or KINDS
        self._shapes = Shapes({kind: shape for kind, shape in _SHAPES.items() if kind in kinds})
        self.hint, self.opening = self._shapes.wide, self._shapes.wide_opening

    def spans(self, data: bytes, start: int = 0) -> list[Span]:
        found: list[Span] = []
        while (match := self._shapes.search(data, start)) is not None:
            kind, first, end = match
            start = end
            if kind == "assigned_secret":
                # Only the value is secret, not what it is assigned to.
                assigned = _ASSIGNED.match(data, first)
                value = assigned.end() if assigned is not None else first
                if looks_random(data[value:end].rstrip(b".")):
                    found.append(Span(value, end, kind, first))
                else:
                    start = value
                continue
            if is_word(char_before(data, first)):
                # In the middle of another word; what follows may still begin one.
                start = first + 1
                continue
            if kind in _LONG:
                end = start = long_end(data, end, kind)
            found.append(Span(first, end, kind))
        return found

    def open_at(self, data: bytes, start: int = 0) -> int:
        return self._shapes.open_at(data, start)


def long_end(data: bytes, end: int, kind: str) -> int:
    """Where a token or a block of lines ends that began before ``end``."""
    charset, most = _LONG[kind]
    last = min(len(data), end + most)
    while end < last and data[end] in charset:
        end += 1
    if kind == "private_key":
        footer = _FOOTER.match(data, end)
        if footer is not None:
            return footer.end()
        if _FOOTER.open_at(data, end) == end:
            # The rest may be the beginning of its last line.
            return len(data)
    return end


def looks_random(value: bytes) -> bool:
    """Whether a value looks drawn by lot: letters and digits mixed, and high entropy (Shannon 1948) of its characters."""
    if len(value) < 12:
        return False
    digits = sum(48 <= byte <= 57 for byte in value)
    letters = sum(65 <= byte <= 90 or 97 <= byte <= 122 for byte in value)
    if not digits or not letters:
        return False
    counts = Counter(value)
    entropy = -sum(count / len(value) * log2(count / len(value)) for count in counts.values())
    return entropy >= _RANDOM
