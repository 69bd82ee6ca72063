"""Where what a check found lacking is mended."""

from __future__ import annotations

from django.urls import reverse

from llmops.readiness.finding import Check


def address(check: Check) -> str:
    """The path of the list, the page, or of the setting among all settings."""
    if check.link.isupper():
        return f"{reverse('dashboards:settings')}#{check.link}"
    return reverse(check.link if ":" in check.link else f"admin:{check.link.replace('.', '_')}_changelist")
