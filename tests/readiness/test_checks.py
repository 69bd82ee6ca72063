"""Each check, on what it finds lacking and on what it finds met."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from django.utils import timezone

from llmops.access.models import Membership, OidcIdentity, SecondFactor
from llmops.alerts.models import Channel, Evaluation, Incident, Notification, Rule, Slo
from llmops.audit.models import Verification
from llmops.budgets.models import Budget
from llmops.core.ids import uuid7
from llmops.dashboards.settings_told import settings_told
from llmops.prompts.models import Label
from llmops.providers.models import ModelTrial, OpenBreaker, Price, Rotation
from llmops.providers.models.health import CredentialTrouble
from llmops.readiness.addresses import address
from llmops.readiness.checks import CHECKS, every_check
from llmops.readiness.finding import CATEGORIES, LACKING, MET, NOTHING
from llmops.serving.models import PublishingRule, Revision
from llmops.tools.models import Tool, ToolVersion
from llmops.usage.models import CallOutcome, Journal, ProviderImport
from tests.readiness.world import (
    ago,
    credential,
    day_of_calls,
    journal,
    key,
    model,
    policy,
    project,
    prompt,
    provider,
    route,
)

pytestmark = [pytest.mark.django_db, pytest.mark.any_engine]

#: Each arranges, and yields what is to be found then.
Case = Callable[[Any], Iterator[str]]
CASES: dict[str, Case] = {}


def case(name: str) -> Callable[[Case], Case]:
    def keep(found: Case) -> Case:
        CASES[name] = found
        return found

    return keep


def of_routes(
    name: str, wrong: dict[str, Any], right: dict[str, Any], *, models: int = 1, more: int = 0
) -> None:
    """A case of one route that is changed."""

    @case(name)
    def arrange(settings: Any) -> Iterator[str]:
        yield NOTHING
        made = [model(f"m{n}") for n in range(models)]
        found = route("r", *made, **wrong)
        yield LACKING
        for field, value in right.items():
            setattr(found, field, value)
        found.save()
        for n in range(more):
            found.targets.create(model=model(f"more{n}", at=f"other{n}"), fallback=True, position=9)
        yield MET


of_routes("routes-fall-back", {}, {}, more=1)
of_routes("routes-at-two-providers", {}, {}, models=2, more=1)
of_routes("routes-retry", {"attempts": 1}, {"attempts": 2})
of_routes("attempts-reach-fallbacks", {"attempts": 2}, {"attempts": 3}, models=3)
of_routes("routes-end-in-time", {"total_timeout_ms": 600_000}, {"total_timeout_ms": 90_000})
of_routes("last-resort", {}, {"last_resort": "cached"})
of_routes("long-inputs", {}, {"context_strategy": "drop_oldest"})


def of_setting(check: str, setting: str, wrong: Any, right: Any) -> None:
    @case(check)
    def arrange(settings: Any) -> Iterator[str]:
        setattr(settings, setting, wrong)
        yield LACKING
        setattr(settings, setting, right)
        yield MET


of_setting("second-factor-required", "SECOND_FACTOR_REQUIRED", [], ["admin"])
of_setting("tls", "SECURE_TLS", False, True)
of_setting("debug-off", "DEBUG", True, False)
of_setting("hosts-named", "ALLOWED_HOSTS", ["*"], ["console.example.com"])
of_setting("logs-structured", "LOG_FORMAT", "line", "json")
of_setting("calls-logged", "LOG_CALLS", False, True)
of_setting("links-lead-back", "PUBLIC_URL", "http://127.0.0.1:8000", "https://console.example.com")
of_setting(
    "mail-leaves",
    "EMAIL_BACKEND",
    "django.core.mail.backends.filebased.EmailBackend",
    "django.core.mail.backends.smtp.EmailBackend",
)


@case("spare-credentials")
def _(settings: Any) -> Iterator[str]:
    yield NOTHING
    route("r", model("a"))
    credential("first")
    credential("gone", state="revoked")
    yield LACKING
    credential("second")
    yield MET


@case("breakers-closed")
def _(settings: Any) -> Iterator[str]:
    yield MET
    OpenBreaker.objects.create(
        process=uuid4(),
        host="h",
        route="r",
        model="a",
        provider="up",
        since=ago(hours=2),
        until=timezone.now(),
    )
    yield LACKING
    OpenBreaker.objects.update(since=ago(minutes=5))
    yield MET


@case("outcomes-known")
def _(settings: Any) -> Iterator[str]:
    day_of_calls("ok")
    yield MET
    day_of_calls("unknown")
    yield LACKING


def administrator(name: str) -> Any:
    return get_user_model().objects.create(username=name, is_superuser=True, is_staff=True)


@case("second-factors")
def _(settings: Any) -> Iterator[str]:
    yield NOTHING
    ada = administrator("ada")
    yield LACKING
    SecondFactor.objects.create(user=ada)
    yield MET


@case("two-administrators")
def _(settings: Any) -> Iterator[str]:
    administrator("ada")
    yield LACKING
    # Whom the organisation signs in has no password here.
    bea = get_user_model()(username="bea")
    bea.set_unusable_password()
    bea.save()
    Membership.objects.create(user=bea, role="admin", project=None)
    yield LACKING
    OidcIdentity.objects.create(user=bea, issuer="https://id.example.com", subject="bea")
    yield MET


@case("provider-keys-young")
def _(settings: Any) -> Iterator[str]:
    yield NOTHING
    one = credential(set_at=ago(days=400))
    yield LACKING
    one.rotate_after_days = 500
    one.save()
    yield MET


def of_keys(name: str, **right: Any) -> None:
    @case(name)
    def arrange(settings: Any) -> Iterator[str]:
        yield NOTHING
        one = key(project())
        key(one.project, "of the console", held_by_console=True)
        key(one.project, "gone", revoked_at=timezone.now())
        yield LACKING
        for field, value in right.items():
            setattr(one, field, value)
        one.save()
        yield MET


of_keys("service-keys-expire", expires_at=timezone.now() + timedelta(days=9_000))
of_keys("service-keys-narrow", allowed_routes=["chat"], allowed_models=["small"])
of_keys("keys-limited", rpm=60)


@case("tools-signed")
def _(settings: Any) -> Iterator[str]:
    yield NOTHING
    one = Tool.objects.create(project=project(), slug="hook")
    version = ToolVersion.objects.create(
        tool=one, number=1, definition={"executor": "webhook"}, digest="", created_by="x"
    )
    Tool.objects.filter(pk=one.pk).update(current=version)
    yield LACKING
    Tool.objects.filter(pk=one.pk).update(sealed="something")
    yield MET


@case("personal-data-policed")
def _(settings: Any) -> Iterator[str]:
    policy("some", "secrets")
    yield LACKING
    policy("more", "personal_data")
    yield MET


@case("injection-policed")
def _(settings: Any) -> Iterator[str]:
    yield LACKING
    policy("some", "injection")
    yield MET


@case("publishing-by-two")
def _(settings: Any) -> Iterator[str]:
    yield LACKING
    PublishingRule.objects.update_or_create(pk=1, defaults={"always": True})
    yield MET


@case("audit-verified")
def _(settings: Any) -> Iterator[str]:
    yield LACKING
    run = Verification.objects.create(
        state=Verification.INTACT, started_by="x", started_at=ago(days=9), heartbeat_at=ago(days=9),
        finished_at=ago(days=9), hash="", head_hash="",
    )  # fmt: skip
    yield LACKING
    Verification.objects.filter(pk=run.pk).update(finished_at=timezone.now())
    yield MET
    Verification.objects.filter(pk=run.pk).update(state=Verification.BROKEN)
    yield LACKING


def budget(slug: str, scope: str = "project", **fields: Any) -> Budget:
    return Budget.objects.create(slug=slug, scope_kind=scope, limit_nano=10**9, **fields)


@case("projects-bounded")
def _(settings: Any) -> Iterator[str]:
    yield NOTHING
    one = project()
    budget("soft", project=one, scope_value=one.slug, hard=False)
    yield LACKING
    budget("hard", project=one, scope_value=one.slug, hard=True)
    yield MET


@case("organisation-bounded")
def _(settings: Any) -> Iterator[str]:
    yield LACKING
    budget("all", "organisation")
    yield MET


@case("budgets-warn")
def _(settings: Any) -> Iterator[str]:
    yield NOTHING
    one = budget("all", "organisation", thresholds=[80])
    yield LACKING
    Budget.objects.filter(pk=one.pk).update(notify=["ops@example.com"])
    yield MET


@case("models-priced")
def _(settings: Any) -> Iterator[str]:
    yield NOTHING
    one = model("a")
    route("r", one)
    yield LACKING
    price(one)
    yield MET


def price(of: Any, source: str = "", token_class: str = "input") -> None:
    Price.objects.create(
        model=of, token_class=token_class, nano_per_million=1, effective_from=ago(days=1), source=source,
        created_by="seed",
    )  # fmt: skip


@case("prices-sourced")
def _(settings: Any) -> Iterator[str]:
    yield NOTHING
    one, other = model("a"), model("b")
    route("r", one)
    price(one, "the provider's page")
    price(other)
    yield MET
    route("s", other)
    yield LACKING


@case("output-capped")
def _(settings: Any) -> Iterator[str]:
    yield NOTHING
    route("r", model("a"))
    yield MET
    route("s", model("b", default_max_output_tokens=1_000))
    yield LACKING


@case("spend-reconciled")
def _(settings: Any) -> Iterator[str]:
    yield LACKING
    for days, found in ((90, LACKING), (2, MET)):
        ProviderImport.objects.create(
            provider="up", source="csv", digest="d", has_tokens=True, has_cost=True, first_day=ago(days=9).date(),
            last_day=ago(days=8).date(), imported_at=ago(days=days), imported_by="x",
        )  # fmt: skip
        yield found


@case("projects-owned")
def _(settings: Any) -> Iterator[str]:
    yield NOTHING
    one = project(owner="ada@example.com")
    yield LACKING
    one.cost_center = "CC-1"
    one.save()
    yield MET


@case("metrics-scraped")
def _(settings: Any) -> Iterator[str]:
    one = project()
    key(one)
    yield LACKING
    key(one, "prometheus", scopes=["metrics"])
    yield MET


@case("ledger-follows")
def _(settings: Any) -> Iterator[str]:
    yield NOTHING
    one = journal()
    yield MET
    Journal.objects.filter(pk=one.pk).update(seen_at=ago(hours=1))
    yield LACKING


@case("journals-whole")
def _(settings: Any) -> Iterator[str]:
    journal()
    yield MET
    journal(state=Journal.LOST)
    yield LACKING


@case("credentials-readable")
def _(settings: Any) -> Iterator[str]:
    one = credential()
    yield MET
    now = timezone.now()
    CredentialTrouble.objects.create(
        credential=one, process=uuid4(), host="h", reason="no file", since=now, seen_at=now
    )
    yield LACKING


@case("limits-shared")
def _(settings: Any) -> Iterator[str]:
    settings.REDIS_URL = ""
    journal()
    yield NOTHING
    journal()
    yield LACKING
    settings.REDIS_URL = "redis://cache:6379/0"
    yield MET


@case("database-for-many")
def _(settings: Any) -> Iterator[str]:
    yield MET if connection.vendor == "postgresql" else LACKING


@case("models-pinned")
def _(settings: Any) -> Iterator[str]:
    yield NOTHING
    route("r", model("a"))
    yield MET
    route("s", model("b", floats=True, floats_reason="the provider has no other"))
    yield LACKING


@case("models-tried")
def _(settings: Any) -> Iterator[str]:
    yield NOTHING
    one, other = model("a"), model("b")
    route("r", one, other)
    day_of_calls("ok", "a")
    yield LACKING
    ModelTrial.objects.create(
        model=other,
        version=1,
        at=timezone.now(),
        by="x",
        state=ModelTrial.ANSWERED,
        held_nano=1,
        charged_nano=1,
    )
    yield MET


@case("credentials-probed")
def _(settings: Any) -> Iterator[str]:
    yield NOTHING
    one = credential()
    yield LACKING
    one.last_probe_at = one.last_failure_at = ago(minutes=5)
    one.save()
    yield LACKING
    one.last_used_at = timezone.now()
    one.save()
    yield MET
    one.last_used_at = one.last_failure_at = None
    one.save()
    yield MET


@case("rotation-rehearsed")
def _(settings: Any) -> Iterator[str]:
    yield LACKING
    old, new = credential("old"), credential("new")
    Rotation.objects.create(
        provider=provider(), old=old, new=new, state="done", begun_by="x", finished_at=ago(days=9)
    )
    yield MET


@case("rollback-rehearsed")
def _(settings: Any) -> Iterator[str]:
    given = {"digest": "d", "document": "{}", "changes": [], "author": "x", "published_at": timezone.now()}
    Revision.objects.create(number=901, **given)
    yield LACKING
    Revision.objects.create(number=902, restores=901, **given)
    yield MET


@case("prompts-sampled")
def _(settings: Any) -> Iterator[str]:
    yield NOTHING
    prompt("a", [{"name": "one"}])
    yield MET
    prompt("b", [])
    yield LACKING


@case("prompts-labelled")
def _(settings: Any) -> Iterator[str]:
    yield NOTHING
    one = prompt("a", [])
    Label.objects.create(prompt=one, name="staging", version=one.current)
    yield LACKING
    Label.objects.create(prompt=one, name="production", version=one.current)
    yield MET


@case("alerts-told")
def _(settings: Any) -> Iterator[str]:
    yield LACKING
    given = {"kind": "mail", "addresses": ["ops@example.com"]}
    late = Channel.objects.create(slug="late", severities=["critical"], after_minutes=10, **given)
    Channel.objects.create(slug="mild", severities=["warning"], **given)
    yield LACKING
    at_once = Channel.objects.create(slug="pager", severities=["critical"], **given)
    yield MET
    rule = Rule.objects.create(slug="r", kind="error_rate", severity="critical")
    incident = Incident.objects.create(
        rule=rule,
        subject="s",
        severity="critical",
        title="t",
        opened_at=ago(hours=1),
        last_true_at=ago(hours=1),
    )
    told = {"incident": incident, "event": "opened", "telling": 1, "due_at": ago(hours=1)}
    Notification.objects.create(channel=late, state="failed", created_at=ago(days=1), **told)
    Notification.objects.create(channel=at_once, state="failed", created_at=ago(days=9), **told)
    yield MET
    Notification.objects.filter(channel=at_once).update(created_at=ago(days=1))
    yield LACKING
    Notification.objects.filter(channel=at_once).update(state="waiting", tries=2)
    yield LACKING
    Notification.objects.filter(channel=at_once).update(state="sent")
    yield MET


@case("rules-looked-at")
def _(settings: Any) -> Iterator[str]:
    yield LACKING
    Evaluation.objects.create(pk=1, ended_at=ago(hours=1))
    yield LACKING
    Evaluation.objects.update(ended_at=timezone.now())
    yield MET
    Evaluation.objects.update(problems=["calls-fail: no such kind"])
    yield LACKING


@case("objectives-set")
def _(settings: Any) -> Iterator[str]:
    yield LACKING
    slo = Slo.objects.create(slug="s", objective=Slo.AVAILABILITY, target_ppm=990_000)
    yield MET
    Slo.objects.filter(pk=slo.pk).update(archived_at=timezone.now())
    yield LACKING


@case("policies-triable")
def _(settings: Any) -> Iterator[str]:
    one = project()
    yield LACKING
    one.keep_texts_percent = 5
    one.save()
    yield MET


@case("outcomes-told")
def _(settings: Any) -> Iterator[str]:
    yield LACKING
    CallOutcome.objects.create(
        call_id=uuid7(), call_started_at=ago(days=1), project_id=uuid4(), key_id=uuid4(), kind="resolved",
        at=timezone.now(), told_by="x",
    )  # fmt: skip
    yield MET


@pytest.mark.parametrize("name", CHECKS)
def test_a_check(settings: Any, name: str) -> None:
    [check] = [one for one in every_check() if one.id == name]
    for number, expected in enumerate(CASES[name](settings)):
        found = check.look()
        assert found.state == expected, (number, found)
        assert found.evidence.endswith("."), found


def test_the_registry() -> None:
    checks, known = every_check(), {name for row in settings_told() for name in row.names}
    assert [one.id for one in checks] == list(CHECKS)
    assert set(CASES) == set(CHECKS)
    assert len({one.title for one in checks}) == len(checks) >= 40
    for one in checks:
        assert CHECKS[one.id].endswith(one.id.replace("-", "_"))
        assert one.category in CATEGORIES
        assert one.fix.endswith(".") and not one.title.endswith(".")
        assert one.link and address(one).startswith("/"), one.id
        if one.link.isupper():
            assert one.link in one.fix and one.link in known, one.id
    assert min(sum(one.category == name for one in checks) for name in CATEGORIES) >= 8
