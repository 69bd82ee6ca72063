"""Cases of security."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.utils import timezone

from llmops.access.models import Membership, OidcIdentity, SecondFactor
from llmops.audit.models import Verification
from llmops.readiness.finding import LACKING, MET, NOTHING
from llmops.serving.models import PublishingRule
from llmops.tools.models import Tool, ToolVersion
from tests.readiness.cases.case import case, of_keys, of_setting
from tests.readiness.world import ago, credential, policy, project


def administrator(name: str) -> Any:
    return get_user_model().objects.create(username=name, is_superuser=True, is_staff=True)


@case("second-factors")
def _(settings: Any) -> Iterator[str]:
    yield NOTHING
    ada = administrator("ada")
    yield LACKING
    SecondFactor.objects.create(user=ada)
    yield MET


of_setting("second-factor-required", "SECOND_FACTOR_REQUIRED", [], ["admin"])


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


of_setting("tls", "SECURE_TLS", False, True)
of_setting("debug-off", "DEBUG", True, False)
of_setting("hosts-named", "ALLOWED_HOSTS", ["*"], ["console.example.com"])


@case("provider-keys-young")
def _(settings: Any) -> Iterator[str]:
    yield NOTHING
    one = credential(set_at=ago(days=400))
    yield LACKING
    one.rotate_after_days = 500
    one.save()
    yield MET


of_keys("service-keys-expire", expires_at=timezone.now() + timedelta(days=9_000))
of_keys("service-keys-narrow", allowed_routes=["chat"], allowed_models=["small"])


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
