from llmops.alerts.models.channels import Channel, Notification
from llmops.alerts.models.evaluation import Evaluation
from llmops.alerts.models.incidents import Entry, Incident, Silence
from llmops.alerts.models.rules import SEVERITIES, Rule, Slo

__all__ = [
    "SEVERITIES",
    "Channel",
    "Entry",
    "Evaluation",
    "Incident",
    "Notification",
    "Rule",
    "Silence",
    "Slo",
]
