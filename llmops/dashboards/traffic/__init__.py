"""The Traffic page: how much is called, with how many tokens, by whom, and how much of it came from caches."""

from llmops.dashboards.traffic.build import build

__all__ = ["build"]
