"""Reading policies. Rooms beside this one ask through the settings that point here."""

from __future__ import annotations

from collections.abc import Collection

from django.conf import settings
from django.utils.module_loading import import_string

from llmops.policies.models import Policy


def policy_names() -> list[str]:
    """Policies in use, by name. ``settings.POLICY_NAMES`` points here."""
    return list(Policy.objects.filter(archived_at=None).order_by("slug").values_list("slug", flat=True))


def missing_policies(names: Collection[str]) -> list[str]:
    """Those of ``names`` that no policy in use has; the others stay until the caller's transaction ends.

    ``settings.MISSING_POLICIES`` points here.
    """
    rows = Policy.objects.select_for_update().filter(slug__in=names, archived_at=None).order_by("slug")
    found = {row.slug for row in rows}
    return sorted(set(names) - found)


def routes_naming(policy: str) -> list[str]:
    """Routes in use that name ``policy``. Routes live in a room beside this one: ``settings.ROUTES_NAMING_POLICY``."""
    found: list[str] = import_string(settings.ROUTES_NAMING_POLICY)(policy)
    return found
