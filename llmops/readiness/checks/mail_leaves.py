"""Warnings reach people."""

from __future__ import annotations

from django.conf import settings

from llmops.readiness.finding import MONITORING, Check, Finding, lacking, met


def look() -> Finding:
    backend = settings.EMAIL_BACKEND.rpartition(".")[2]
    if "smtp" in settings.EMAIL_BACKEND:
        return met(f"By way of {settings.EMAIL_HOST}.")
    return lacking(f"E-mail goes nowhere ({backend}).")


CHECK = Check(
    "mail-leaves",
    MONITORING,
    "Warnings reach people",
    fix="Set EMAIL_URL to your mail server.",
    link="EMAIL_URL",
    look=look,
)
