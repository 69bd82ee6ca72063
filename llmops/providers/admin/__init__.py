"""The admin pages of this room. Everything but keys and pauses is a draft until it is published."""

from llmops.providers.admin.credentials import CredentialAdmin
from llmops.providers.admin.models import ModelAdmin, PriceAdmin
from llmops.providers.admin.providers import ProviderAdmin
from llmops.providers.admin.rotations import RotationAdmin
from llmops.providers.admin.routes import RouteAdmin

__all__ = ["CredentialAdmin", "ModelAdmin", "PriceAdmin", "ProviderAdmin", "RotationAdmin", "RouteAdmin"]
