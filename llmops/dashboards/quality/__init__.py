"""The Quality page: answers that came, and were not what was asked for."""

from llmops.dashboards.quality.build import build

__all__ = ["build"]
