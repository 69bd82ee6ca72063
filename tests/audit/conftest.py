from __future__ import annotations

from llmops.access import services
from tests.cast import acting, cast, issue, quick_passwords
from tests.kept import kept

__all__ = ["cast", "quick_passwords"]


@kept
def told(cast):
    cast.key = issue(cast.support, actor=acting(cast.bob), name="ci").key
    services.update_service_key(acting(cast.alice), key=cast.key, rpm=60)
    cast.foreign = issue(cast.search, actor=acting(cast.charlie), name="ranker").key
    return cast
