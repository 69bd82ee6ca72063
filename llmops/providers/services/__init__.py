"""Changes to providers, their keys, models, prices and routes.

Each function is one transaction with one audit event. Providers, models, prices and routes are drafts: a change is
served once it is published. Keys, pauses and degrading take effect at once.
"""

from llmops.base.drafts import DRAFT_LOCK
from llmops.providers.services.credentials import (
    activate_credential,
    add_credential,
    drain_credential,
    probe_credential,
    read_again,
    remind_after,
    replace_secret,
    revoke_credential,
)
from llmops.providers.services.health import (
    BreakerChange,
    CredentialChange,
    LimitsLeft,
    forget_old_events,
    forget_process,
    note_headroom,
    note_health,
)
from llmops.providers.services.models import (
    add_price,
    archive_model,
    create_model,
    pin_model,
    unarchive_model,
)
from llmops.providers.services.price_lists import PlannedPrice, add_prices, plan_prices
from llmops.providers.services.providers import (
    archive_provider,
    create_provider,
    pause_provider,
    resume_provider,
    unarchive_provider,
    update_provider,
)
from llmops.providers.services.rotations import (
    activate_rotation,
    begin_rotation,
    cancel_rotation,
    finish_rotation,
    return_rotation,
)
from llmops.providers.services.routes import (
    archive_route,
    create_route,
    degrade_route,
    pause_route,
    recover_route,
    reset_breakers_route,
    resume_route,
    unarchive_route,
    update_route,
)
from llmops.providers.services.tending import remind_of_keys, tend_rotations
from llmops.providers.services.trials import list_models, prices_now, try_model
from llmops.providers.services.troubles import report_unreadable
from llmops.providers.services.uses import report_uses

__all__ = [
    "DRAFT_LOCK",
    "BreakerChange",
    "CredentialChange",
    "LimitsLeft",
    "PlannedPrice",
    "activate_credential",
    "activate_rotation",
    "add_credential",
    "add_price",
    "add_prices",
    "archive_model",
    "archive_provider",
    "archive_route",
    "begin_rotation",
    "cancel_rotation",
    "create_model",
    "create_provider",
    "create_route",
    "degrade_route",
    "drain_credential",
    "finish_rotation",
    "forget_old_events",
    "forget_process",
    "list_models",
    "note_headroom",
    "note_health",
    "pause_provider",
    "pause_route",
    "pin_model",
    "plan_prices",
    "prices_now",
    "probe_credential",
    "read_again",
    "recover_route",
    "remind_after",
    "remind_of_keys",
    "replace_secret",
    "report_unreadable",
    "report_uses",
    "reset_breakers_route",
    "resume_provider",
    "resume_route",
    "return_rotation",
    "revoke_credential",
    "tend_rotations",
    "try_model",
    "unarchive_model",
    "unarchive_provider",
    "unarchive_route",
    "update_provider",
    "update_route",
]
