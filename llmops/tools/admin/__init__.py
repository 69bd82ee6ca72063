"""Pages of tools and actions."""

from llmops.tools.admin import actions, tools

__all__ = ["actions", "tools"]
