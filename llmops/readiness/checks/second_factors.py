"""Administrators sign in with a second factor."""

from __future__ import annotations

from llmops.access.models import OidcIdentity, Passkey, SecondFactor
from llmops.readiness.facts import administrators
from llmops.readiness.finding import SECURITY, Check, Finding, every


def look() -> Finding:
    people = administrators()
    safe = set(SecondFactor.objects.values_list("user_id", flat=True))
    safe |= set(Passkey.objects.values_list("user_id", flat=True)) | set(
        OidcIdentity.objects.values_list("user_id", flat=True)
    )
    return every(
        people,
        [one.get_username() for one in people if one.pk not in safe],
        "administrators",
        "sign in with a password alone",
    )


CHECK = Check(
    "second-factors",
    SECURITY,
    "Administrators sign in with a second factor",
    fix="Add an authenticator app or a passkey under Account, or sign in through your organisation.",
    link="auth.user",
    look=look,
)
