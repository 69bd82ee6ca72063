"""Switches of the whole organisation, and what each does to the live state that data planes serve. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llmops.serving.snapshot import RevisionDocument

DEGRADE, HOLD_BATCH = "degrade", "hold-batch"


@dataclass(frozen=True, slots=True)
class Switch:
    title: str
    #: what happens while it is on
    does: str


SWITCHES = {
    DEGRADE: Switch(
        "Fallbacks only",
        "Every route that has fallbacks or a last resort passes over its targets: its cheaper models, kept answers and fixed "
        "texts answer. Routes that have neither go on as usual.",
    ),
    HOLD_BATCH: Switch(
        "No batch work",
        "Calls of service keys with the priority “batch” are refused, so that what the providers still give is for people.",
    ),
}


def degraded(
    document: RevisionDocument, one_by_one: Mapping[str, str], on: Mapping[str, str]
) -> dict[str, str]:
    """Routes whose targets are passed over and why: those degraded one by one, and under ``degrade`` all that have something
    else to answer with. ``on`` maps switches that are on to their reasons."""
    if DEGRADE not in on:
        return dict(one_by_one)
    able = (
        route.slug
        for route in document.routes
        if route.fallbacks or route.fallbacks_for or route.last_resort != "none"
    )
    return {**dict.fromkeys(able, on[DEGRADE]), **one_by_one}
