"""Secrets in what is asked or answered: key shapes as published by their makers (November 2026), and values that are
assigned to something called a password, secret or token and look random."""

from __future__ import annotations

import re
from collections import Counter
from math import log2
from typing import Annotated, Any, Literal, get_args

from msgspec import Meta

from llmops.core.stopping import go_on
from llmops.policies.checks.base import FINDS_PLACES, Span, TextCheck, TextSettings
from llmops.policies.patterns import Pattern, char_before, is_word

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
#: Kind -> its shape. A shape is bounded; ``_LONG`` says what goes on for longer. None begins in the middle of a word.
_SHAPES = {
    "anthropic_key": r"\bsk-ant-[A-Za-z0-9]{1,10}-[A-Za-z0-9_-]{20,200}",
    "openai_key": r"\bsk-(?:proj-|svcacct-|admin-|None-)?[A-Za-z0-9_-]{20,250}",
    "aws_key_id": r"\b(?:AKIA|ASIA|ABIA|ACCA)[0-9A-Z]{16}",
    "github_token": r"\b(?:gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{40,255})",
    "slack_token": r"\b(?:xox[abeoprs]-[A-Za-z0-9-]{10,250}|xapp-[0-9]-[A-Za-z0-9-]{10,250})",
    "google_key": r"\bAIza[0-9A-Za-z_-]{35}",
    "jwt": r"\beyJ[A-Za-z0-9_-]{10,500}\.eyJ[A-Za-z0-9_-]{8}",
    "private_key": r"\B-----BEGIN (?:[A-Z0-9]{2,20} ){0,4}PRIVATE KEY(?: BLOCK)?-----",
    "other_key": (
        r"\b(?:llmops_[a-z0-9]{8}_[A-Za-z0-9_-]{20,100}|hvs\.[A-Za-z0-9_-]{20,250}|hf_[A-Za-z0-9]{30,60}"
        r"|glpat-[A-Za-z0-9_-]{20,60}|(?:sk|rk)_(?:live|test)_[A-Za-z0-9]{20,250}|npm_[A-Za-z0-9]{36}"
        r"|SG\.[A-Za-z0-9_-]{20,24}\.[A-Za-z0-9_-]{40,46})"
    ),
    "assigned_secret": _ASSIGN + r"[A-Za-z0-9_~!@#$%^&*+./=-]{12,200}",
}
#: What a match begins with tells its kind; ``sk-ant-`` may still be one or the other.
_KIND_OF = {
    b"sk-": "openai_key",
    **dict.fromkeys((b"AKI", b"ASI", b"ABI", b"ACC"), "aws_key_id"),
    **dict.fromkeys((b"ghp", b"gho", b"ghu", b"ghs", b"ghr", b"git"), "github_token"),
    **dict.fromkeys((b"xox", b"xap"), "slack_token"),
    b"AIz": "google_key",
    b"eyJ": "jwt",
    b"---": "private_key",
    **dict.fromkeys((b"llm", b"hvs", b"hf_", b"glp", b"sk_", b"rk_", b"npm", b"SG."), "other_key"),
}
_ANTHROPIC = Pattern(_SHAPES["anthropic_key"])
#: What a match of a kind goes on over, and for how many bytes at most.
_LONG = {
    "jwt": re.compile(rb"[A-Za-z0-9_.-]{0,8192}"),
    "private_key": re.compile(rb"[A-Za-z0-9+/=\\ \t\r\n:,]{0,20480}"),
}
_ASSIGNED = Pattern(_ASSIGN)
_FOOTER = Pattern(r"-----END (?:[A-Z0-9]{2,20} ){0,4}PRIVATE KEY(?: BLOCK)?-----")
#: Bits per character from which a value looks random; English words have about 3 in this measure, and fewer classes.
_RANDOM = 3.2
_DIGITS, _LETTERS = b"0123456789", b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


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
        self._any = Pattern("|".join(shape for kind, shape in _SHAPES.items() if kind in kinds))
        self._anthropic = _ANTHROPIC if "anthropic_key" in kinds else None
        self.hint, self.opening = self._any.wide, self._any.wide_opening

    def spans(self, data: bytes, start: int = 0) -> list[Span]:
        found: list[Span] = []
        while True:
            go_on()
            first, end = self._any.find(data, start)
            if first < 0:
                return found
            start = end
            kind = self._kind(data, first)
            if kind == "assigned_secret":
                # Only the value is secret, not what it is assigned to.
                value = max(first, _ASSIGNED.end_of(data, first))
                if looks_random(data[value:end].rstrip(b".")):
                    found.append(Span(value, end, kind, first))
                else:
                    start = value
                continue
            if first and data[first - 1] >= 128 and is_word(char_before(data, first)):
                # In the middle of another word; what follows may still begin one.
                start = first + 1
                continue
            if kind in _LONG:
                end = start = long_end(data, end, kind)
            found.append(Span(first, end, kind))

    def _kind(self, data: bytes, first: int) -> str:
        kind = _KIND_OF.get(data[first : first + 3], "assigned_secret")
        if kind == "openai_key" and self._anthropic is not None and data.startswith(b"sk-ant-", first):
            return "openai_key" if self._anthropic.end_of(data, first) < 0 else "anthropic_key"
        return kind

    def open_at(self, data: bytes, start: int = 0) -> int:
        return self._any.open_at(data, start)


def long_end(data: bytes, end: int, kind: str) -> int:
    """Where a token or a block of lines ends that began before ``end``."""
    more = _LONG[kind].match(data, end)
    end = more.end() if more is not None else end
    if kind == "private_key":
        if (footer := _FOOTER.end_of(data, end)) >= 0:
            return footer
        if _FOOTER.open_at(data, end) == end:
            # The rest may be the beginning of its last line.
            return len(data)
    return end


def looks_random(value: bytes) -> bool:
    """Whether a value looks drawn by lot: letters and digits mixed, and high entropy (Shannon 1948) of its characters."""
    if len(value) < 12:
        return False
    if len(value.translate(None, _DIGITS)) == len(value) or len(value.translate(None, _LETTERS)) == len(
        value
    ):
        return False
    counts = Counter(value)
    entropy = -sum(count / len(value) * log2(count / len(value)) for count in counts.values())
    return entropy >= _RANDOM
