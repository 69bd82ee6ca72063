"""SLOs, alert rules and alert channels: as they are, what has to be done, doing it, and writing them down."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from console.declarative.alert_state import numbers_of
from console.declarative.alerting import CHANNEL, RULE, SLO
from console.declarative.present import Present
from console.declarative.schema import Entry
from console.declarative.shape import Secret
from console.declarative.state import State
from console.declarative.steps import BRING_BACK, CHANGE, CREATE, REPLACE, Planner, Step, bare, placeholder
from llmops.access.models import Project
from llmops.alerts import services
from llmops.alerts.channels import channel_named
from llmops.alerts.kinds import Kind, kind_named
from llmops.alerts.models import Channel, Rule, Slo
from llmops.alerts.services.rules import checked_settings
from llmops.alerts.shipped import SHIPPED
from llmops.core.actors import Actor
from llmops.core.digests import sha256_hex
from llmops.core.errors import ConsoleError, InvalidRequest
from llmops.core.money import format_usd

# What has to be done


def plan_slo(planner: Planner, entry: Entry, found: Present | None) -> Iterator[Step]:
    _placed(planner, entry, found)
    yield from planner.plain(entry, found, entry.values)


def plan_rule(planner: Planner, entry: Entry, found: Present | None) -> Iterator[Step]:
    values = dict(entry.values)
    try:
        kind = kind_named(values["kind"])
        values["settings"] = checked_settings(kind, values["settings"])
    except InvalidRequest as refused:
        planner.bad(entry, refused.param or "kind", bare(refused))
        return
    values["runbook"] = values["runbook"] or kind.runbook
    if found is not None and found.values["kind"] != kind.name:
        planner.bad(
            entry,
            "kind",
            f"the rule of this name is of the kind {found.values['kind']}, and stays so; give yours another name",
        )
        return
    _placed(planner, entry, found)
    yield from planner.plain(entry, found, values)


def _placed(planner: Planner, entry: Entry, found: Present | None) -> None:
    project, route = entry.values["project"], entry.values["route"]
    if project is not None and (found is None or found.values["project"] != project):
        planner.refer(entry, "project", "project", project)
    if route and planner.missing("route", route):
        planner.notes.append(
            f"{entry.kind} {entry.key}: there is no route {route!r}; it counts calls once there is."
        )


def plan_channel(planner: Planner, entry: Entry, found: Present | None) -> Iterator[Step]:
    values = {name: value for name, value in entry.values.items() if name != "secret"}
    secret: Secret | None = entry.values["secret"]
    try:
        sealing = channel_named(values["kind"]).sealing
        plain = planner.reveal(secret) if secret and secret.scheme != "plain" else None
    except ConsoleError as refused:
        planner.bad(entry, "secret" if secret and refused.param != "kind" else "kind", bare(refused))
        return
    if wrong := _wrong(entry, found, sealing):
        planner.bad(entry, *wrong)
        return
    if values["project"] is not None and (found is None or found.values["project"] != values["project"]):
        planner.refer(entry, "project", "project", values["project"])
    if sealing == "address":
        # What is kept of it is its host.
        values.pop("url")
    if found is None:
        if plain is None and (secret is not None or sealing == "address"):
            where = secret or "the address"
            planner.bad(
                entry,
                "secret",
                f"{where} cannot be read by this process: set it for the process that applies the file",
            )
            return
        if plain is None and sealing == "signs":
            planner.notes.append(
                f"{entry.kind} {entry.key}: its messages are signed with a secret that nobody has seen. Make a new one under Alert "
                "channels, or name one here (secret: env:NAME), and give it to the receiver."
            )
        words = (str(secret),) if secret else ()
        yield planner.step(CREATE, entry, {**values, **({"secret": plain} if plain else {})}, words)
        return
    yield from planner.plain(entry, found, values)
    if secret is None:
        return
    if plain is None:
        planner.unread.append((f"{entry.kind} {entry.key}", str(secret)))
    elif sha256_hex(plain.encode())[:12] != found.values["fingerprint"]:
        yield planner.step(REPLACE, entry, {"secret": plain}, (f"its secret → {secret}",))


def _wrong(entry: Entry, found: Present | None, sealing: str) -> tuple[str, str] | None:
    """The member of a channel that cannot be, and why."""
    values, secret = entry.values, entry.values["secret"]
    if found is not None and found.values["kind"] != values["kind"]:
        return (
            "kind",
            f"the channel of this name is of the kind {found.values['kind']}, and stays so; give yours another name",
        )
    if sealing == "address" and values["url"]:
        return (
            "url",
            "whoever knows the address of a chat may write there: name where it is kept (secret: env:NAME), not itself",
        )
    if sealing == "address" and secret is None:
        return "secret", "say where the address of the chat is kept, such as secret: env:ALERTS_CHAT"
    if secret is not None and not sealing:
        return "secret", f"a channel of the kind {values['kind']} has no secret"
    if secret is not None and secret.scheme == "plain":
        return "secret", "name where it is kept (env:, file:, vault: or aws:), so that no file holds it"
    return None


# Doing it


def carry_slo(actor: Actor, step: Step) -> None:
    _carry(actor, step, "slo", Slo, services.create_slo, services.update_slo, services.restore_slo)


def carry_rule(actor: Actor, step: Step) -> None:
    _carry(actor, step, "rule", Rule, services.create_rule, services.update_rule, services.restore_rule)


def carry_channel(actor: Actor, step: Step) -> None:
    if step.action == REPLACE:
        channel = Channel.objects.get(slug=step.key)
        services.replace_secret(actor, channel=channel, secret=step.values["secret"])
        return
    _carry(
        actor,
        step,
        "channel",
        Channel,
        services.create_channel,
        services.update_channel,
        services.restore_channel,
    )


def _carry(
    actor: Actor,
    step: Step,
    name: str,
    table: type[Slo | Rule | Channel],
    create: Callable[..., object],
    update: Callable[..., object],
    restore: Callable[..., object],
) -> None:
    values = _with_project(step)
    if step.action == CREATE:
        create(actor, slug=step.key, **values)
        return
    row = {name: table._default_manager.get(slug=step.key)}
    if step.action == BRING_BACK:
        restore(actor, **row)
    elif step.action == CHANGE:
        update(actor, **row, **values)


def _with_project(step: Step) -> dict[str, Any]:
    values = dict(step.values)
    if "project" in values:
        values["project"] = Project.objects.get(slug=values["project"]) if values["project"] else None
    return values


# Writing them down


def written(state: State, kind: str) -> Iterator[dict[str, Any]]:
    """Rows of the file for what is in use. Rules that are as they were shipped are in every installation and left out."""
    write = {SLO: _slo_row, RULE: _rule_row, CHANNEL: _channel_row}[kind]
    for key, found in sorted(state.objects.get(kind, {}).items()):
        project = state.find("project", found.values["project"]) if found.values["project"] else None
        if (
            not found.gone
            and not (project and project.gone)
            and not (kind == RULE and _as_shipped(key, found))
        ):
            yield {"slug": key, **write(key, found.values), "project": found.values["project"]}


def _slo_row(_: str, values: dict[str, Any]) -> dict[str, Any]:
    cost = values["objective"] == Slo.COST
    return {
        "objective": values["objective"],
        "target": _decimal(values["target_ppm"], 10_000),
        "within": None if cost or not values["threshold"] else _decimal(values["threshold"], 1_000_000),
        "cost_usd": format_usd(values["threshold"]) if cost else None,
        **{name: values[name] for name in ("window_days", "route", "feature")},
    }


def _rule_row(_: str, values: dict[str, Any]) -> dict[str, Any]:
    kind = kind_named(values["kind"])
    usual = numbers_of(kind.name, {})
    return {
        "kind": kind.name,
        "numbers": {name: value for name, value in values["settings"].items() if value != usual.get(name)},
        "severity": values["severity"],
        "runbook": None if values["runbook"] in ("", kind.runbook) else values["runbook"],
        "resolve_after": values["resolve_after_s"],
        **{name: values[name] for name in ("enabled", "model", "route", "feature")},
    }


def _as_shipped(slug: str, found: Present) -> bool:
    one = next((one for one in SHIPPED if one.slug == slug), None)
    if one is None or one.kind != found.values["kind"]:
        return False
    kind: Kind = kind_named(one.kind)
    as_shipped = {
        "kind": one.kind, "severity": one.severity, "resolve_after_s": one.resolve_after_s, "enabled": True,
        "settings": numbers_of(one.kind, one.settings), "runbook": kind.runbook, "route": "", "model": "", "feature": "",
        "project": None,
    }  # fmt: skip
    return found.values == as_shipped


def _channel_row(slug: str, values: dict[str, Any]) -> dict[str, Any]:
    chat = channel_named(values["kind"]).sealing == "address"
    start, end = values["quiet_from"], values["quiet_to"]
    return {
        "kind": values["kind"],
        "severities": values["severities"],
        "addresses": values["addresses"],
        "url": "" if chat else values["url"],
        "secret": f"env:{placeholder('alerts', slug)}" if chat else None,
        **{name: values[name] for name in ("allow_private_network", "after_minutes", "timezone", "enabled")},
        "quiet": None if start is None else f"{start // 60:02}:{start % 60:02}-{end // 60:02}:{end % 60:02}",
    }


def _decimal(value: int, factor: int) -> int | float:
    whole, rest = divmod(value, factor)
    return whole if not rest else value / factor
