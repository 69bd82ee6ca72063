"""Journals made for tests: calls as a data plane writes them down."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

from llmops.core.ids import uuid7
from llmops.core.verdicts import Verdict
from llmops.usage.journal import JournalWriter
from llmops.usage.records import (
    Attempt,
    Charge,
    Ended,
    Held,
    HeldCharge,
    Media,
    Origin,
    Outcome,
    Tokens,
)

MODELS, ROUTES, FEATURES = ("small", "large"), ("chat", "search", ""), ("", "triage", "draft")


#: Finish reasons and verdicts come by turns, so that each meets the other.
FINISHES = ("stop", "stop", "length", "content_filter", "max_output_tokens", "tool_calls", "")
VERDICTS = (
    [],
    [("schema", "retry")],
    [],
    [("personal_data", "redact"), ("refusal", "allow")],
    [("lazy", "block")],
    [("length", "require_approval")],
    [("truncation", "allow"), ("content_filter", "retry"), ("truncation", "allow")],
    [],
)


def verdicts_of(number: int) -> list[Verdict]:
    return [
        Verdict(policy="p", version=1, stage="after", check=check, action=action)
        for check, action in VERDICTS[number % len(VERDICTS)]
    ]


def origin(**known: object) -> Origin:
    values: dict[str, object] = {
        "call": str(uuid7()),
        "started": time.time_ns(),
        "project": str(uuid4()),
        "key": str(uuid4()),
        "endpoint": "chat.completions",
        "revision": 1,
        "route": "chat",
    }
    return Origin(**(values | known))  # type: ignore[arg-type]


def outcome(status: str = "ok", http: int = 200, **known: object) -> Outcome:
    values: dict[str, object] = {
        "model": "small",
        "model_version": 1,
        "provider": "sim",
        "attempts": [Attempt(n=1, model="small", provider="sim", status=http)],
        "tokens": Tokens(input=10, output=20),
        "total_us": 30_000,
        "upstream_us": 29_000,
    }
    return Outcome(status=status, http=http, **(values | known))  # type: ignore[arg-type]


@dataclass
class Scribe:
    """Writes calls into a journal, as the data plane would, and remembers what it wrote."""

    writer: JournalWriter
    projects: list[UUID] = field(default_factory=lambda: [uuid4(), uuid4()])
    keys: list[UUID] = field(default_factory=lambda: [uuid4() for _ in range(3)])
    random: random.Random = field(default_factory=lambda: random.Random(7))
    written: list[Ended] = field(default_factory=list)

    @classmethod
    def at(cls, directory: Path, **known: object) -> Scribe:
        return cls(JournalWriter(directory), **known)  # type: ignore[arg-type]

    def hold(
        self, who: Origin, *, attempt: int = 1, windows: dict[int, int] | None = None, **known: object
    ) -> Held:
        held = Held(
            n=0,
            at=time.time_ns(),
            attempt=attempt,
            origin=who,
            model="small",
            model_version=1,
            provider="sim",
            charges=[HeldCharge(window, amount) for window, amount in (windows or {}).items()],
            worst_cost=max((windows or {0: 0}).values()),
            **known,  # type: ignore[arg-type]
        )
        self.writer.append(held)
        return held

    def end(
        self,
        who: Origin,
        *,
        attempt: int = 1,
        windows: dict[int, tuple[int, int]] | None = None,
        cost: int = 0,
        result: Outcome | None = None,
        soft: tuple[str, ...] = (),
    ) -> Ended:
        """``windows`` is window -> (held, cost)."""
        ended = Ended(
            n=0,
            at=time.time_ns(),
            attempt=attempt,
            origin=who,
            charges=[
                Charge(window, held, min(held, spent), max(0, spent - held))
                for window, (held, spent) in (windows or {}).items()
            ],
            soft=list(soft),
            cost=cost,
            outcome=result,
        )
        self.writer.append(ended)
        self.written.append(ended)
        return ended

    def call(
        self,
        *,
        windows: dict[int, tuple[int, int]] | None = None,
        cost: int = 0,
        soft: tuple[str, ...] = (),
        result: Outcome | None = None,
        **known: object,
    ) -> Origin:
        """One call of one attempt, begun and ended."""
        who = origin(**known)
        self.hold(who, windows={window: held for window, (held, _) in (windows or {}).items()})
        self.end(who, windows=windows, cost=cost, soft=soft, result=result or outcome())
        return who

    def traffic(self, calls: int, *, since: float | None = None, seconds: float = 600) -> None:
        """Calls of every sort, begun at random in ``seconds`` from ``since`` (Unix) on."""
        since = time.time() - seconds if since is None else since
        for _ in range(calls):
            pick = self.random
            started = int((since + pick.random() * seconds) * 1e9)
            who = origin(
                started=started,
                project=str(pick.choice(self.projects)),
                key=str(pick.choice(self.keys)),
                route=pick.choice(ROUTES),
                feature=pick.choice(FEATURES),
                streamed=pick.random() < 0.4,
                # Not drawn, so that the rest of the traffic does not change with them.
                user=("", "0123456789abcdef", "fedcba9876543210")[len(self.written) % 3],
                tags=[[], ["customer:a"], ["customer:a", "vip", "vip", ""]][len(self.written) // 3 % 3],
                prompt_name=("", "", "triage", "draft")[len(self.written) % 4],
                prompt_version=(0, 0, 1, 2, 0)[len(self.written) % 5] if len(self.written) % 4 > 1 else 0,
            )
            status = pick.choices(
                ("ok", "error", "refused", "client_closed", "interrupted"), weights=(85, 6, 5, 2, 2)
            )[0]
            model = pick.choice(MODELS)
            total = int(pick.lognormvariate(12, 1))
            if status == "refused":
                self.end(
                    who,
                    attempt=0,
                    result=Outcome(status=status, http=429, code="rate_limit_exceeded", total_us=300),
                )
                continue
            if status == "ok" and pick.random() < 0.1:
                self.end(
                    who,
                    attempt=0,
                    result=Outcome(
                        status="ok",
                        http=200,
                        model=model,
                        cache=pick.choice(("hit", "joined", "stale")),
                        saved=pick.randrange(1_000_000),
                        total_us=200,
                    ),
                )
                continue
            attempts = 2 if pick.random() < 0.1 else 1
            for number in range(1, attempts):
                self.hold(who, attempt=number)
                self.end(who, attempt=number, cost=pick.randrange(100))
            self.hold(who, attempt=attempts)
            cost = pick.randrange(1_000_000)
            self.end(
                who,
                attempt=attempts,
                cost=cost,
                result=Outcome(
                    status=status,
                    http=200 if status != "error" else 502,
                    code="" if status == "ok" else pick.choice(("upstream_error", "upstream_timeout")),
                    model=model,
                    model_version=1,
                    provider="sim",
                    attempts=[
                        Attempt(n=number, model=model, provider="sim", status=200, total_us=total)
                        for number in range(1, attempts + 1)
                    ],
                    retries=attempts - 1,
                    fallbacks=int(attempts > 1 and pick.random() < 0.5),
                    tokens=Tokens(
                        input=pick.randrange(2000),
                        cached=pick.randrange(10),
                        output=pick.randrange(900),
                        media=Media(*(pick.randrange(90) for _ in range(7))) if pick.random() < 0.3 else None,
                    ),
                    total_us=total,
                    ttft_us=total // 3 if who.streamed else None,
                    cache=pick.choice(("", "miss")),
                    upstream_us=total - pick.randrange(min(total, 3000) + 1),
                    queue_us=(0, 0, 900, 1_000, 40_000)[len(self.written) % 5],
                    finish=FINISHES[len(self.written) % len(FINISHES)],
                    capped=len(self.written) % 2 == 0,
                    verdicts=verdicts_of(len(self.written)),
                ),
            )
