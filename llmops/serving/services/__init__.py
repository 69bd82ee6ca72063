"""Changes of what is live: publishing, restoring, bringing revisions from elsewhere, and who must agree."""

from llmops.serving.services.bringing import bring
from llmops.serving.services.proposing import import_revision, propose
from llmops.serving.services.publishing import (
    NothingToPublish,
    SecondPersonNeeded,
    note_export,
    publish,
    publish_brought,
    restore,
)
from llmops.serving.services.rule import change_rule
from llmops.serving.services.switches import switch_off, switch_on

__all__ = [
    "NothingToPublish",
    "SecondPersonNeeded",
    "bring",
    "change_rule",
    "import_revision",
    "note_export",
    "propose",
    "publish",
    "publish_brought",
    "restore",
    "switch_off",
    "switch_on",
]
