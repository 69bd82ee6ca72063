"""The admin pages of this room. Nothing here is live before it is published, and each page says what is."""

from llmops.prompts.admin.labels import LabelAdmin
from llmops.prompts.admin.prompts import PromptAdmin
from llmops.prompts.admin.versions import PromptVersionAdmin

__all__ = ["LabelAdmin", "PromptAdmin", "PromptVersionAdmin"]
