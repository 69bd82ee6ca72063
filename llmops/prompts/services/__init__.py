"""Changes to prompts: each is one transaction with one audit event. Versions and labels serve once they are published."""

from llmops.prompts.services.labels import move_label, remove_label
from llmops.prompts.services.prompts import (
    archive_prompt,
    create_prompt,
    duplicate_prompt,
    note_export,
    unarchive_prompt,
    update_prompt,
)
from llmops.prompts.services.versions import add_version, discard_draft, import_prompt, save_draft

__all__ = [
    "add_version",
    "archive_prompt",
    "create_prompt",
    "discard_draft",
    "duplicate_prompt",
    "import_prompt",
    "move_label",
    "note_export",
    "remove_label",
    "save_draft",
    "unarchive_prompt",
    "update_prompt",
]
