"""The Overview page: is anything wrong, and where."""

from llmops.dashboards.overview.build import build, marker, standings

__all__ = ["build", "marker", "standings"]
