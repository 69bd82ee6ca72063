"""One of everything that the console knows, and who looks at it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import transaction
from django.test import Client

from llmops.access import services as access
from llmops.access.models import Membership, Project, SecondFactor
from llmops.access.rules import SCOPES
from llmops.access.sealed import factor_identity
from llmops.alerts import services as alerts
from llmops.alerts.models import Incident
from llmops.approvals import standing_in
from llmops.base.master_keys import master_keys, verify_master_keys
from llmops.base.models import MasterKeyVerifier
from llmops.base.requests import user_actor
from llmops.budgets import services as budgets
from llmops.budgets.models import Overrun
from llmops.core.digests import sha256_hex
from llmops.core.ids import uuid7
from llmops.core.money import parse_usd
from llmops.dashboards.boards.saved import save_view
from llmops.evals import services as evals
from llmops.playground import services as playground
from llmops.playground.models import Run
from llmops.policies import services as policies
from llmops.prompts import services as prompts
from llmops.providers import services as providers
from llmops.runs import services as runs
from llmops.runs.rules import read_asked
from llmops.runs.services.leasing import write_step
from llmops.serving import services as serving
from llmops.serving.files import packed
from llmops.serving.selectors import exported
from llmops.tools import services as tools
from llmops.tools.models import Action
from llmops.usage import services as usage
from llmops.usage.models import Call, Journal, Replay
from tests.cast import COMMAND, bearer, issue, make_cast, person, signed_in
from tests.usage.texts_kept import keep_texts, open_project

YESTERDAY = (datetime.now(UTC) - timedelta(days=1)).date()
TOMORROW = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
LONG_AGO = (datetime.now(UTC) - timedelta(days=3)).date()
#: In the order of the columns of ``permissions/``.
ACTORS = (
    "nobody", "alice", "bob", "carla", "dan", "rita", "charlie",
    "k_inference", "k_read", "k_configure", "k_keys", "k_budgets", "k_audit", "k_members", "k_everything",
)  # fmt: skip


def a_model(provider: Any, slug: str) -> Any:
    model = providers.create_model(
        COMMAND,
        slug=slug,
        provider=provider,
        upstream_model=slug,
        context_window=8000,
        max_output_tokens=1000,
        default_max_output_tokens=100,
        capabilities=["chat", "stream"],
    )
    for token_class in ("input", "output"):
        providers.add_price(
            COMMAND, model=model, token_class=token_class, nano_per_million=parse_usd("1", field="price")
        )
    return model


def build() -> SimpleNamespace:
    """Rows in the states that the actions of ``tests.console.changes`` need, and a client for each actor."""
    w = make_cast()
    w.eve = access.create_user(COMMAND, username="eve")
    factor = SecondFactor(user=w.eve)
    factor.sealed = master_keys().seal("00", identity=factor_identity(factor.pk))
    factor.save()
    w.closed = access.deactivate_user(COMMAND, user=access.create_user(COMMAND, username="closed"))
    w.old_project = access.archive_project(COMMAND, project=access.create_project(COMMAND, slug="old"))
    w.membership = Membership.objects.get(user=w.rita)
    # Of tomorrow, so that nobody decides for anybody yet.
    w.stand_in = standing_in.name_stand_in(
        user_actor(w.carla),
        person="carla",
        stand_in="bob",
        starts_at=TOMORROW,
        ends_at=TOMORROW + timedelta(days=1),
    )
    w.key = issue(w.support, name="worker").key
    w.rotated_key = access.rotate_service_key(COMMAND, key=issue(w.support, name="rotated").key).key
    w.foreign_key = issue(w.search, name="ranker").key

    w.provider = providers.create_provider(
        COMMAND,
        slug="sim",
        kind="simulator",
        base_url="http://127.0.0.1:9/v1",
        fields={"allow_private_network": True},
    )
    w.spare_provider = providers.create_provider(
        COMMAND,
        slug="spare",
        kind="simulator",
        base_url="http://127.0.0.1:9/v1",
        fields={"allow_private_network": True},
    )
    w.paused_provider = providers.pause_provider(
        COMMAND,
        provider=providers.create_provider(
            COMMAND, slug="paused", kind="openai", base_url="https://api.openai.com/v1"
        ),
        reason="maintenance",
    )
    w.old_provider = providers.archive_provider(
        COMMAND,
        provider=providers.create_provider(
            COMMAND, slug="gone", kind="openai", base_url="https://api.openai.com/v1"
        ),
    )
    w.staged = providers.add_credential(
        COMMAND, provider=w.provider, name="staged", secret="simulated-key-0001"
    )
    w.paused_key = access.pause_service_key(
        COMMAND,
        key=access.create_service_key(COMMAND, project=w.support, name="paused").key,
        reason="why not",
    )
    w.active = providers.add_credential(
        COMMAND, provider=w.provider, name="active", secret="simulated-key-0002", activate=True
    )
    providers.add_credential(
        COMMAND, provider=w.provider, name="second", secret="simulated-key-0003", activate=True
    )
    w.referenced = providers.add_credential(
        COMMAND, provider=w.provider, name="referenced", source="env", reference="SIM_KEY"
    )
    w.rotation, w.draining_rotation = (a_rotation(w.provider, name) for name in ("third", "fourth"))
    providers.activate_rotation(COMMAND, rotation=w.draining_rotation)
    verify_master_keys()
    w.master_key = MasterKeyVerifier.objects.get()
    w.old_master_key = MasterKeyVerifier.objects.create(
        key_id="earlier", sealed=master_keys().seal("known", identity="base.master_key:earlier")
    )
    w.model = a_model(w.provider, "sim-small")
    w.price = w.model.prices.first()
    w.spare_model = a_model(w.provider, "sim-spare")
    w.listed_provider = providers.create_provider(
        COMMAND, slug="listed", kind="openai", base_url="https://api.openai.com/v1"
    )
    w.listed_model = a_model(w.listed_provider, "gpt-4o-2024-08-06")
    w.old_model = providers.archive_model(COMMAND, model=a_model(w.provider, "sim-old"))
    w.policy = policies.create_policy(
        COMMAND, slug="pii", checks=[{"kind": "personal_data", "stage": "before", "action": "block"}]
    )
    w.first_version = w.policy.current
    w.policy = policies.update_policy(
        COMMAND,
        policy=w.policy,
        checks=[{"kind": "personal_data", "stage": "before", "action": "redact"}],
    )
    w.old_policy = policies.archive_policy(
        COMMAND,
        policy=policies.create_policy(
            COMMAND, slug="gone", checks=[{"kind": "refusal", "stage": "after", "action": "block"}]
        ),
    )
    hello = {"system": "You greet.", "user": "{{ name }}"}
    w.prompt = prompts.create_prompt(COMMAND, slug="hello", project=w.support, content=hello)
    w.first_prompt_version = w.prompt.current
    prompts.add_version(COMMAND, prompt=w.prompt, content={**hello, "system": "You greet politely."})
    for number in (1, 2):
        w.label = prompts.move_label(COMMAND, prompt=w.prompt, name="staging", number=number, reason="to try")
    w.prompt = prompts.save_draft(COMMAND, prompt=w.prompt, draft={**hello, "system": "You greet EMAIL_1."})
    w.shared_prompt = prompts.create_prompt(COMMAND, slug="shared", content={"task": "Say hello."})
    w.foreign_prompt = prompts.create_prompt(
        COMMAND, slug="ranking", project=w.search, content={"task": "Rank."}
    )
    w.old_prompt = prompts.archive_prompt(
        COMMAND,
        prompt=prompts.create_prompt(COMMAND, slug="gone", project=w.support, content={"task": "Go."}),
    )
    w.route = providers.create_route(COMMAND, slug="chat", targets=[(w.model, 100)])
    w.first_revision = serving.publish(COMMAND, reason="first")
    w.paused_route = providers.pause_route(
        COMMAND,
        route=providers.create_route(COMMAND, slug="paused", targets=[(w.model, 100)]),
        reason="why not",
    )
    w.degraded_route = providers.degrade_route(
        COMMAND,
        route=providers.create_route(COMMAND, slug="degraded", targets=[(w.model, 100)]),
        reason="slow today",
    )
    w.revision = serving.publish(COMMAND, reason="second")
    w.revision_file = exported(w.first_revision)
    brought = w.first_revision.document.replace('"attempts":3', '"attempts":4')
    w.brought = serving.bring(
        COMMAND,
        data=packed(
            brought,
            digest=sha256_hex(brought.encode()),
            number=7,
            author="eve",
            reason="tried",
            published_at="2026-01-01T00:00:00+00:00",
        ),
    )
    w.old_route = providers.archive_route(
        COMMAND, route=providers.create_route(COMMAND, slug="gone", targets=[(w.model, 100)])
    )
    # Something to publish.
    w.draft_route = providers.create_route(COMMAND, slug="draft", targets=[(w.model, 100)])

    w.budget = budgets.create_budget(
        COMMAND, slug="support-month", scope_kind="project", scope_value="support",
        project_id=w.support.pk, limit_nano=parse_usd("5", field="limit"),
    )  # fmt: skip
    w.foreign_budget = budgets.create_budget(
        COMMAND, slug="search-month", scope_kind="project", scope_value="search",
        project_id=w.search.pk, limit_nano=parse_usd("5", field="limit"),
    )  # fmt: skip
    w.strict_budget = budgets.create_budget(
        COMMAND, slug="support-strict", scope_kind="feature", scope_value="strict", project_id=w.support.pk,
        limit_nano=parse_usd("5", field="limit"), second_person=True,
    )  # fmt: skip
    w.raise_asked = budgets.ask_raise(
        user_actor(w.bob), budget_id=w.budget.pk, amount_nano=10**9, ends_at=TOMORROW, reason="a busy day"
    )
    w.own_raise = budgets.ask_raise(
        user_actor(w.root), budget_id=w.budget.pk, amount_nano=10**9, ends_at=TOMORROW, reason="a busy day"
    )
    w.foreign_raise = budgets.ask_raise(
        COMMAND, budget_id=w.foreign_budget.pk, amount_nano=10**9, ends_at=TOMORROW, reason="a busy day"
    )
    for name, project in (("", w.support), ("foreign_", w.search)):
        for row, value in some_actions(project, w.root).items():
            setattr(w, name + row, value)
    w.lost_lease, w.foreign_lost_lease = (a_lost_lease(one) for one in (w.budget, w.foreign_budget))
    w.overrun = Overrun.objects.create(
        window=w.budget.windows.get(), amount_nano=1, cause="a test", at=datetime.now(UTC)
    )
    w.job = usage.request_rebuild(COMMAND, LONG_AGO, enqueue=False)
    w.journal = Journal.objects.create(
        id=uuid7(), host="h", opened_at=datetime.now(UTC), seen_at=datetime.now(UTC)
    )
    w.call, w.foreign_call = (
        a_call(project, endpoint="chat.completions") for project in (w.support, w.search)
    )
    w.replay, w.foreign_replay = (
        Replay.objects.create(
            of_call=call.pk, project_id=call.project_id, key_id=call.key_id, model="chat", made_by="root",
            made_by_id="0", made_at=datetime.now(UTC),
        )
        for call in (w.call, w.foreign_call)
    )  # fmt: skip
    w.unknown_call = a_call(w.support, status="unknown", cost_nano=5)
    w.foreign_unknown_call = a_call(w.search, status="unknown", cost_nano=5)
    for project, call in ((w.support, w.call), (w.search, w.foreign_call)):
        open_project(project)
        keep_texts(call)
    w.dataset, w.foreign_dataset = (
        evals.create_dataset(COMMAND, project=project, name="cases") for project in (w.support, w.search)
    )
    w.event = access.update_project(COMMAND, project=w.support, owner="ops@example.com") and last_event()

    w.saved_view = save_view(
        user_actor(w.root), owner=w.root.pk, page="quality", name="Mine", query="range=7d"
    )
    some_alerts(w)
    a_playground(w)
    w.started_run = a_started_run(w.root, w.support, w.lost_action)
    w.foreign_started_run = a_started_run(w.root, w.search, w.foreign_lost_action)
    w.clients = {
        "nobody": Client(),
        "root": signed_in(w.root),
        **{name: signed_in(getattr(w, name)) for name in ACTORS[1:7]},
        **{f"k_{scope}": bearer(issue(w.support, scope, name=f"k {scope}").secret) for scope in SCOPES[:-1]},
        "k_everything": bearer(issue(w.support, *SCOPES, name="k everything").secret),
        "pam": signed_in(person("pam", ("admin", w.support))),
    }
    return w


def a_started_run(who: Any, project: Project, action: Action) -> Any:
    """One of root's that waits for a worker, and has a turn with a call behind it."""
    asked = read_asked({"messages": [{"role": "user", "content": "Who?"}], "model": "chat", "mode": "queued"})
    run = runs.start_run(user_actor(who), project=project, asked=asked)[0]
    function = {"name": "handed-tool", "arguments": '{"text": "EMAIL_1"}'}
    message = {"content": "I look.", "tool_calls": [{"id": "c", "type": "function", "function": function}]}
    told = {"id": "c", "arguments": function["arguments"], "says": "Say EMAIL_1", "content": '{"done": true}'}
    at = {"turn": 1, "place": 0, "what": "handed-tool", "action": action, "outcome": "unknown"}
    for n, step in enumerate((
        {"kind": "turn", "turn": 1, "what": "sim-small", "content": {"message": message}},
        {"kind": "call", **at, "content": told},
        {"kind": "result", **at, "content": told},
        {"kind": "note", "turn": 1, "what": "parked", "content": {"text": "It waits."}},
    )):  # fmt: skip
        write_step(run, n + 1, datetime.now(UTC), step)
    return run


def some_actions(project: Project, proposer: Any) -> dict[str, Any]:
    """Tools in each state, and an action in each from which somebody may go on."""
    definition = {
        "description": "Says it again.", "says": "Say {text}", "risk": "destructive", "dry_run": True,
        "parameters": {"type": "object", "properties": {"text": {"type": "string"}}}, "executor": "python",
        "settings": {"function": "echo"},
    }  # fmt: skip
    handed = {
        **definition,
        "risk": "write",
        "dry_run": False,
        "execution": "service",
        "executor": "",
        "settings": {},
    }
    made = {
        name: tools.create_tool(COMMAND, project=project, slug=name.replace("_", "-"), definition=value)
        for name, value in {
            "tool": definition, "paused_tool": definition, "old_tool": definition, "handed_tool": handed,
        }.items()
    }  # fmt: skip
    tools.pause_tool(COMMAND, tool=made["paused_tool"], reason="why not")
    tools.archive_tool(COMMAND, tool=made["old_tool"])

    def proposed(tool: str) -> Any:
        return tools.propose(
            user_actor(proposer), project=project, tool=tool, arguments={"text": "EMAIL_1"}, reason="why not"
        )

    made["own_action"] = proposed("tool")
    for name in ("granted_action", "redeemed_action", "lost_action"):
        made[name] = proposed("handed-tool")
    for name in ("redeemed_action", "lost_action"):
        action = made[name]
        made[name], _ = tools.redeem(user_actor(proposer), action=action, token=tools.token_of(action))
    Action.objects.filter(pk=made["lost_action"].pk).update(state=Action.UNKNOWN)
    return made


def some_alerts(w: SimpleNamespace) -> None:
    """Rules, objectives and channels, and an incident in each state from which somebody may go on."""
    now = datetime.now(UTC)
    w.alert_rule = alerts.create_rule(
        COMMAND, slug="support-fails", kind="error_rate", project=w.support, feature="EMAIL_1"
    )
    foreign_rule = alerts.create_rule(COMMAND, slug="search-fails", kind="error_rate", project=w.search)
    w.foreign_alert_rule = foreign_rule
    w.old_alert_rule = alerts.archive_rule(
        COMMAND, rule=alerts.create_rule(COMMAND, slug="gone", kind="latency", project=w.support)
    )
    for name, project in (("", w.support), ("foreign_", w.search)):
        slo, old = (
            alerts.create_slo(COMMAND, slug=f"{project.slug}-{end}", target_ppm=990_000, project=project)
            for end in ("answers", "gone")
        )
        setattr(w, f"{name}slo", slo)
        setattr(w, f"{name}old_slo", alerts.archive_slo(COMMAND, slo=old))
        channel, _ = alerts.create_channel(
            COMMAND, slug=f"{project.slug}-mail", kind="mail", project=project, addresses=["ops@example.com"]
        )
        hook, _ = alerts.create_channel(
            COMMAND,
            slug=f"{project.slug}-hook",
            kind="webhook",
            project=project,
            url="https://hooks.example.com/alerts",
        )
        gone, _ = alerts.create_channel(
            COMMAND, slug=f"{project.slug}-gone", kind="mail", project=project, addresses=["ops@example.com"]
        )
        setattr(w, f"{name}channel", channel)
        setattr(w, f"{name}hook", hook)
        setattr(w, f"{name}old_channel", alerts.archive_channel(COMMAND, channel=gone))
        rule = w.alert_rule if project is w.support else foreign_rule
        for subject, more in {
            "incident": {}, "well_incident": {"clear_since": now}, "silent_incident": {},
        }.items():  # fmt: skip
            made = Incident.objects.create(
                rule=rule, subject=f"route:{subject}", project=project, severity="warning", title=f"Calls fail: {subject}",
                opened_at=now, last_true_at=now, told=True, facts={"route": "chat", "status": "failed"}, **more,
            )  # fmt: skip
            setattr(w, f"{name}{subject}", made)
        alerts.silence(COMMAND, incident=made, minutes=60, reason="why not")


def a_playground(w: SimpleNamespace) -> None:
    """A key that works, one that was revoked, a run of root that is under way and one of Charlie's."""
    access.revoke_service_key(COMMAND, key=runs.key_in_use(w.search)[0].service_key)
    playground.key_in_use(w.support)
    access.revoke_service_key(COMMAND, key=playground.key_in_use(w.search)[0].service_key)
    now = datetime.now(UTC)
    w.run, w.foreign_run = (
        Run.objects.create(
            project=project,
            user=user,
            model="chat",
            digest="0" * 64,
            started_at=now,
            beat_at=now,
            watched_at=now,
        )
        for project, user in ((w.support, w.root), (w.search, w.charlie))
    )


def a_rotation(provider: Any, name: str) -> Any:
    old = providers.add_credential(
        COMMAND, provider=provider, name=name, secret=f"simulated-key-{name}", activate=True
    )
    return providers.begin_rotation(
        COMMAND, credential=old, secret=f"simulated-key-{name}-next", unprobed_reason="a test"
    )


def last_event() -> Any:
    from llmops.audit.models import Event

    return Event.objects.first()


def a_lost_lease(budget: Any) -> Any:
    window = budgets.open_window(budget_id=budget.pk, at=datetime.now(UTC))
    budgets.lease(window_id=window.window_id, journal_id=uuid7(), need=1, want=9, lease_seconds=-1)
    budgets.reap_leases()
    return budget.windows.get().leases.get()


def a_call(project: Project, **known: Any) -> Call:
    required: dict[str, Any] = {}
    for field in Call._meta.concrete_fields:
        if field.has_default() or field.null or field.blank or field.primary_key:
            continue
        kind = field.get_internal_type()
        required[field.attname] = {
            "UUIDField": project.pk,
            "DateTimeField": datetime.now(UTC),
            "CharField": "ok",
            "JSONField": {},
            "BooleanField": False,
        }.get(kind, 0)
    return Call.objects.create(
        **{"id": uuid7(), **required, "project_id": project.pk, "status": "ok", **known}
    )


@contextmanager
def undone() -> Iterator[None]:
    """What the block does to the database is taken back."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


@pytest.fixture(scope="module")
def world(django_db_setup: None, django_db_blocker: Any) -> Iterator[SimpleNamespace]:
    """Built once a module inside one transaction, which is taken back at the end; tests use ``undone``."""
    with django_db_blocker.unblock(), undone():
        yield build()
