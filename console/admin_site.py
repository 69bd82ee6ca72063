"""The one admin site."""

from __future__ import annotations

from unfold.sites import UnfoldAdminSite


class ConsoleAdminSite(UnfoldAdminSite):
    site_title = site_header = "LLMOps Console"
