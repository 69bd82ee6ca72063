"""Cases of monitoring."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

from django.db import connection
from django.utils import timezone

from llmops.alerts.models import Channel, Evaluation, Incident, Notification, Rule, Slo
from llmops.providers.models.health import CredentialTrouble
from llmops.readiness.finding import LACKING, MET, NOTHING
from llmops.usage.models import Journal
from tests.readiness.cases.case import case, of_setting
from tests.readiness.world import ago, credential, journal, key, project


@case("metrics-scraped")
def _(settings: Any) -> Iterator[str]:
    one = project()
    key(one)
    yield LACKING
    key(one, "prometheus", scopes=["metrics"])
    yield MET


of_setting("logs-structured", "LOG_FORMAT", "line", "json")
of_setting("calls-logged", "LOG_CALLS", False, True)
of_setting(
    "mail-leaves",
    "EMAIL_BACKEND",
    "django.core.mail.backends.filebased.EmailBackend",
    "django.core.mail.backends.smtp.EmailBackend",
)
of_setting("links-lead-back", "PUBLIC_URL", "http://127.0.0.1:8000", "https://console.example.com")


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
