"""Changes: what is watched, who is told, what people do about incidents; and the two jobs, looking and telling."""

from llmops.alerts.services.channels import (
    archive_channel,
    create_channel,
    replace_secret,
    restore_channel,
    rotate_secret,
    try_channel,
    update_channel,
)
from llmops.alerts.services.evaluating import evaluate
from llmops.alerts.services.incidents import acknowledge, end_silence, note, resolve, silence
from llmops.alerts.services.outbox import deliver
from llmops.alerts.services.rules import (
    archive_rule,
    create_rule,
    ensure_shipped,
    restore_rule,
    update_rule,
)
from llmops.alerts.services.slos import archive_slo, create_slo, restore_slo, update_slo

__all__ = [
    "acknowledge",
    "archive_channel",
    "archive_rule",
    "archive_slo",
    "create_channel",
    "create_rule",
    "create_slo",
    "deliver",
    "end_silence",
    "ensure_shipped",
    "evaluate",
    "note",
    "replace_secret",
    "resolve",
    "restore_channel",
    "restore_rule",
    "restore_slo",
    "rotate_secret",
    "silence",
    "try_channel",
    "update_channel",
    "update_rule",
    "update_slo",
]
