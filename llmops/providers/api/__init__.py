"""``/api/v1``: providers, their keys, models with versions and prices, routes.

Changes to providers, models, prices and routes are drafts until they are published (``/revisions/``); keys and pauses
take effect at once.
"""

from __future__ import annotations

from typing import Any

from rest_framework.routers import BaseRouter

from llmops.providers.api.credentials import Credentials
from llmops.providers.api.models import Models
from llmops.providers.api.providers import Providers
from llmops.providers.api.rotations import Rotations
from llmops.providers.api.routes import Routes


def register(router: BaseRouter | Any) -> None:
    router.register("providers", Providers)
    router.register("credentials", Credentials)
    router.register("rotations", Rotations)
    router.register("models", Models)
    router.register("routes", Routes)
