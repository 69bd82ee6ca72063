"""The Reliability page: how fast, how often in vain, what carried the load, and what stands in the way now."""

from llmops.dashboards.reliability.build import build

__all__ = ["build"]
