"""Pages of what is watched and who is told. Incidents have pages of their own (``views.py``)."""

from llmops.alerts.admin import channels, rules, slos

__all__ = ["channels", "rules", "slos"]
