"""What has to be done so that all that the file names is as it says. Pure: entries and state in, ordered steps in words out.

Objects that the file does not name are left alone; inside an object the file says everything, except that keys of a
provider and prices are only ever added.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from console.declarative.alert_steps import plan_channel, plan_rule, plan_slo
from console.declarative.alerting import CHANNEL, RULE, SLO
from console.declarative.checks import Report
from console.declarative.definition_steps import plan_prompt, plan_tool
from console.declarative.present import Present
from console.declarative.schema import DEFAULT_ROUTE, PUBLISHING, Entry
from console.declarative.shape import PriceLine, Secret
from console.declarative.state import Prices, State
from console.declarative.steps import (
    ACTIVATE,
    BRING_BACK,
    CHANGE,
    CREATE,
    PRICE,
    REPLACE,
    ROTATE,
    Plan,
    Reveal,
    Step,
    bare,
    member,
    placeholder,
    same,
    shown,
)
from llmops.budgets.scopes import KEY, PROJECT, ROUTE
from llmops.core.digests import sha256_hex
from llmops.core.errors import ConsoleError
from llmops.core.money import format_usd
from llmops.policies.wording import differences
from llmops.providers.rules import looks_floating, origin_of, unit_of
from llmops.providers.services.routes import MODEL_FIELDS
from llmops.serving.rules import Rule


def make_plan(entries: list[Entry], state: State, *, reveal: Reveal) -> Plan:
    """Ordered steps. Raises ``BadFile`` with the lines of everything that cannot be done."""
    planner = _Planner(entries, state, reveal)
    steps = [step for entry in entries for step in planner.steps(entry)]
    planner.report.raise_if_any()
    return Plan(tuple(steps), (*planner.notes, *_stay(planner.unread)))


def _stay(unread: Sequence[tuple[str, str]]) -> Iterator[str]:
    """One note of all secrets that stay since they cannot be read: every untouched export has them."""
    if len(unread) == 1:
        [(what, secret)] = unread
        yield f"{what}: {secret} cannot be read by this process, so the present one stays."
    elif unread:
        named = ", ".join(f"{what} ({secret})" for what, secret in unread)
        yield f"{len(unread)} secrets cannot be read by this process, so the present ones stay: {named}."


class _Planner:
    def __init__(self, entries: list[Entry], state: State, reveal: Reveal) -> None:
        self.state = state
        self.reveal = reveal
        self.report = Report()
        self.notes: list[str] = []
        #: (object, reference) of secrets that stay, since they cannot be read
        self.unread: list[tuple[str, str]] = []
        self.declared = {(entry.kind, entry.key): entry for entry in entries}

    def steps(self, entry: Entry) -> Iterator[Step]:
        present = self.state.find(entry.kind, entry.key)
        yield from _BY_KIND[entry.kind](self, entry, present)

    def project(self, entry: Entry, present: Present | None) -> Iterator[Step]:
        yield from self.plain(entry, present, entry.values)

    def default_route(self, entry: Entry, present: Present | None) -> Iterator[Step]:
        wanted: str = entry.values["default_route"]
        before = present.values["default_route"] if present else ""
        if wanted == before:
            return
        if wanted:
            self.refer(entry, "default_route", "route", wanted)
        words = f"{shown('', before)} → {shown('', wanted)}"
        yield self.step(CHANGE, entry, {"default_route": wanted}, (words,))

    def publishing(self, entry: Entry, present: Present | None) -> Iterator[Step]:
        assert present is not None
        for slug in entry.values["projects"]:
            self.refer(entry, "projects", "project", slug)
        now, wanted = _rule(present, present.values), _rule(present, entry.values)
        if wanted == now:
            return
        if wanted in present.values["asked"]:
            self.notes.append(
                "publishing: the looser rule is asked for already; it holds once another person approves it."
            )
            return
        words = [f"{now.words()} → {wanted.words()}"]
        if wanted.looser_than(now):
            words.append("asked for, since it is looser: it holds once another person approves it")
        values = {
            "always": wanted.always,
            "projects": sorted(wanted.projects),
            "restore_alone": wanted.restore_alone,
        }
        yield self.step(CHANGE, entry, values, tuple(words))

    def provider(self, entry: Entry, present: Present | None) -> Iterator[Step]:
        yield from self.plain(entry, present, entry.values)

    def credential(self, entry: Entry, present: Present | None) -> Iterator[Step]:
        secret: Secret = entry.values["secret"]
        if present is not None and present.gone:
            self.bad(entry, "name", "the key of this name is revoked; give the new one another name")
            return
        try:
            readable = self.reveal(secret)
        except ConsoleError as error:
            self.bad(entry, "secret", bare(error))
            return
        if readable is None and secret.scheme != "plain" and present is None:
            self.notes.append(f"{entry.kind} {entry.key}: {secret} cannot be read by this process.")
        values = {"provider": entry.values["provider"], "name": entry.values["name"], "secret": secret}
        if present is None:
            yield self.step(CREATE, entry, values, (str(secret),))
            return
        as_kept = self._same_secret(entry, present, secret, readable)
        if as_kept and (moved := self._moved(entry, present)):
            # A file that gives the key anew says with it that the key is meant for the new place. A placeholder gives none.
            if secret.scheme != "plain" and present.values["source"] == "sealed":
                self.notes.append(
                    f"{entry.kind} {entry.key}: {moved}, and this file holds no key: until one is given for the new place, "
                    "calls to this provider fail with upstream_auth."
                )
            else:
                yield self.step(REPLACE, entry, values, (moved,))
        elif not as_kept:
            if present.values["source"] == "sealed" and secret.scheme != "plain":
                self.notes.append(
                    f"{entry.kind} {entry.key}: the key kept here is given up for {secret}. Every data plane must find it "
                    "in its own surroundings; where it does not, calls fail with upstream_auth."
                )
            yield self.step(REPLACE, entry, values, (f"{_place(present)} → {secret}",))
        if present.values["state"] != "active":
            yield self.step(ACTIVATE, entry, values, (f"{present.values['state']} → active",))

    def _moved(self, entry: Entry, present: Present) -> str:
        """That the provider is, or will be, elsewhere than where its key was given for; empty: it is not."""
        provider = self.declared.get(("provider", entry.values["provider"]))
        wanted = origin_of(str(provider.values["base_url"])) if provider else present.values["origin"]
        origin = present.values["origin"]
        return "" if wanted == origin else f"given for {origin or 'another place'} → {wanted}"

    def _same_secret(self, entry: Entry, present: Present, secret: Secret, readable: str | None) -> bool:
        kept_here = present.values["source"] == "sealed"
        if secret.scheme == "plain":
            return kept_here and present.values["fingerprint"] == sha256_hex(secret.value.encode())[:12]
        if not kept_here:
            return (present.values["source"], present.values["reference"]) == (secret.scheme, secret.value)
        # An exported file names a placeholder for a key that is kept here: that key stays.
        return (secret.scheme, secret.value) == (
            "env",
            placeholder(entry.values["provider"], entry.values["name"]),
        ) and (readable is None or sha256_hex(readable.encode())[:12] == present.values["fingerprint"])

    def model(self, entry: Entry, present: Present | None) -> Iterator[Step]:
        self.refer(entry, "provider", "provider", entry.values["provider"])
        values = {name: value for name, value in entry.values.items() if name != "prices"}
        if not looks_floating(self._provider_kind(values["provider"]), values["upstream_model"]):
            values["floats_reason"] = ""
        yield from self.plain(entry, present, values)
        known: dict[str, Prices] = present.values["prices"] if present else {}
        for token_class, lines in entry.values["prices"].items():
            yield from self._prices(entry, token_class, lines, known.get(token_class, Prices()))

    def _provider_kind(self, slug: str) -> str:
        found = self.declared.get(("provider", slug)) or self.state.find("provider", slug)
        return str(found.values["kind"]) if found else ""

    def _prices(
        self, entry: Entry, token_class: str, lines: list[PriceLine], known: Prices
    ) -> Iterator[Step]:
        past = [line for line in lines if line.since is None or line.since <= self.state.at]
        if past:
            latest = max(past, key=lambda line: (line.since is not None, line.since))
            if latest.nano_per_million != known.now:
                yield self._price(entry, token_class, latest.nano_per_million, None, known.now)
        for line in lines:
            if line.since is None or line.since <= self.state.at:
                continue
            planned = known.later.get(line.since)
            if planned is None:
                yield self._price(entry, token_class, line.nano_per_million, line.since, None)
            elif planned != line.nano_per_million:
                self.bad(
                    entry,
                    "prices",
                    f"the price of {token_class} from {line.since:%Y-%m-%dT%H:%M:%SZ} is recorded as "
                    f"{format_usd(planned)}, and prices are never edited; give the other one another moment",
                )

    def _price(
        self, entry: Entry, token_class: str, nano: int, since: datetime | None, before: int | None
    ) -> Step:
        words = f"{token_class} {format_usd(nano)} USD per million {unit_of(token_class)}"
        if before is not None:
            words += f" (was {format_usd(before)})"
        words += f" from {since:%Y-%m-%d %H:%M} UTC" if since else " from now on"
        return self.step(
            PRICE,
            entry,
            {"token_class": token_class, "nano_per_million": nano, "effective_from": since},
            (words,),
        )

    def route(self, entry: Entry, present: Present | None) -> Iterator[Step]:
        for slug in entry.values["targets"]:
            self.refer(entry, "targets", "model", slug)
        for slug in entry.values["fallbacks"]:
            self.refer(entry, "fallbacks", "model", slug)
        for chosen in entry.values["fallbacks_for"].values():
            for slug in chosen:
                self.refer(entry, "fallbacks_for", "model", slug)
        kept = present.values["policies"] if present else ()
        for slug in entry.values["policies"]:
            if slug not in kept:
                self.refer(entry, "policies", "policy", slug)
        for name in MODEL_FIELDS:
            if entry.values[name] is not None:
                self.refer(entry, name, "model", entry.values[name])
        yield from self.plain(entry, present, entry.values)

    def policy(self, entry: Entry, present: Present | None) -> Iterator[Step]:
        for step in self.plain(entry, present, entry.values):
            if present is None or "checks" not in step.values:
                yield step
                continue
            words = [line for line in step.words if not line.startswith("checks: ")]
            words += differences(present.values["checks"], entry.values["checks"])
            yield replace(step, words=tuple(words))

    def service_key(self, entry: Entry, present: Present | None) -> Iterator[Step]:
        if present is None:
            self.refer(entry, "project", "project", entry.values["project"])
        secret: Secret = entry.values["secret"]
        if present is not None and present.gone:
            self.bad(entry, "name", "the key of this name is revoked; give the new one another name")
            return
        try:
            plain = self.reveal(secret)
        except ConsoleError as error:
            self.bad(entry, "secret", bare(error))
            return
        values = {name: value for name, value in entry.values.items() if name != "secret"}
        if present is None:
            if plain is None:
                self.bad(
                    entry,
                    "secret",
                    f"{secret} cannot be read by this process, and only its hash is kept: set it for the process that "
                    "applies the file",
                )
                return
            yield self.step(CREATE, entry, {**values, "secret": plain}, (str(secret),))
            return
        yield from self.plain(entry, present, values)
        if plain is None:
            self.unread.append((f"{entry.kind} {entry.key}", str(secret)))
        elif sha256_hex(plain.encode()) != present.values["hash"]:
            yield self.step(
                ROTATE,
                entry,
                {"secret": plain},
                (f"to {secret}; the present secret works for 24 hours more",),
            )

    def budget(self, entry: Entry, present: Present | None) -> Iterator[Step]:
        if present is not None and present.gone:
            self.bad(entry, "name", "the budget of this name is archived; give the new one another name")
            return
        kind, value = entry.values["scope_kind"], entry.values["scope_value"]
        if kind in (PROJECT, KEY) and not self._keeps(entry, present, "scope_kind", "scope_value"):
            self.refer(entry, "scope_value", "project" if kind == PROJECT else "service key", value)
        if kind == ROUTE and self.missing("route", value):
            self.notes.append(
                f"budget {entry.key}: there is no route {value!r}; it counts calls once there is."
            )
        if (named := entry.values["at_limit_route"]) and not self._keeps(entry, present, "at_limit_route"):
            self.refer(entry, "at_limit_route", "route", named)
        if entry.values["project"] is not None and not self._keeps(entry, present, "project"):
            self.refer(entry, "project", "project", entry.values["project"])
        yield from self.plain(entry, present, entry.values)

    def plain(self, entry: Entry, present: Present | None, values: Mapping[str, Any]) -> Iterator[Step]:
        if present is None:
            yield self.step(CREATE, entry, dict(values), ())
            return
        if present.gone:
            yield self.step(BRING_BACK, entry, {}, ())
        changed = {name: value for name, value in values.items() if not same(value, present.values[name])}
        if changed:
            words = tuple(
                f"{member(name)}: {shown(name, present.values[name])} → {shown(name, value)}"
                for name, value in changed.items()
            )
            yield self.step(CHANGE, entry, changed, words)

    def _keeps(self, entry: Entry, present: Present | None, *names: str) -> bool:
        """Whether the object exists and says the same: what it refers to may have gone out of use since."""
        return present is not None and all(entry.values[name] == present.values[name] for name in names)

    def missing(self, kind: str, key: str) -> bool:
        found = self.state.find(kind, key)
        return (kind, key) not in self.declared and (found is None or bool(found.gone))

    def refer(self, entry: Entry, member: str, kind: str, key: str) -> None:
        """Refuse a name that neither the file nor the database has in use."""
        if (kind, key) in self.declared:
            return
        found = self.state.find(kind, key)
        if found is None:
            self.bad(entry, member, f"there is no {kind} {key!r}, neither in this file nor configured")
        elif found.gone:
            self.bad(entry, member, f"the {kind} {key!r} is {found.gone}")

    def step(self, action: str, entry: Entry, values: dict[str, Any], words: tuple[str, ...]) -> Step:
        return Step(action, entry.kind, entry.key, entry.line, values, words, entry.lines)

    def bad(self, entry: Entry, member: str, reason: str) -> None:
        self.report.bad(entry.line_of(member), f"{entry.kind} {entry.key}", reason)


_BY_KIND: dict[str, Callable[[_Planner, Entry, Present | None], Iterator[Step]]] = {
    "project": _Planner.project,
    DEFAULT_ROUTE: _Planner.default_route,
    PUBLISHING: _Planner.publishing,
    "provider": _Planner.provider,
    "credential": _Planner.credential,
    "model": _Planner.model,
    "policy": _Planner.policy,
    "route": _Planner.route,
    "prompt": plan_prompt,
    "tool": plan_tool,
    "service key": _Planner.service_key,
    "budget": _Planner.budget,
    SLO: plan_slo,
    RULE: plan_rule,
    CHANNEL: plan_channel,
}


def _rule(present: Present, values: Mapping[str, Any]) -> Rule:
    """Projects of the rule in force that were put away stay in it: no file names them."""
    projects = frozenset(values["projects"]) | present.values["put_away"]
    return Rule(values["always"], projects, values["restore_alone"])


def _place(present: Present) -> str:
    if present.values["source"] == "sealed":
        return f"kept here ({present.values['fingerprint']}…)"
    return f"{present.values['source']}:{present.values['reference']}"
