"""The Spend page: what was spent on what, why it moved, what it will come to."""

from llmops.dashboards.spend.build import build, filters_of
from llmops.dashboards.spend.query import parse

__all__ = ["build", "filters_of", "parse"]
