"""The admin pages of this room. Everything is a draft until it is published."""

from llmops.policies.admin.policies import PolicyAdmin
from llmops.policies.admin.versions import PolicyVersionAdmin

__all__ = ["PolicyAdmin", "PolicyVersionAdmin"]
