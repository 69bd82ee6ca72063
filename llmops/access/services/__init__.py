"""Changes of projects, service keys, memberships and people. Each function is one transaction with one audit event.

Surfaces decide whether somebody may come in at all; what must hold whichever door was used (nobody gives away what they
do not hold, the last administrator stays) is decided here, against what the actor holds at that moment.
"""

from llmops.access.services.identities import account_of
from llmops.access.services.keys import (
    IssuedKey,
    create_service_key,
    end_grace,
    note_old_secrets,
    pause_service_key,
    remind_of_graces,
    resume_service_key,
    revoke_service_key,
    rotate_service_key,
    update_service_key,
)
from llmops.access.services.master_keys import (
    reseal,
    resume_resealings,
    retire_master_key,
    start_resealing,
    unreadable_values,
)
from llmops.access.services.members import add_member, change_role, remove_member
from llmops.access.services.passkeys import (
    add_passkey,
    ask_for_passkey,
    factors_of,
    offer_passkey,
    remove_passkey,
    take_passkey,
)
from llmops.access.services.people import (
    activate_user,
    change_own_password,
    create_user,
    deactivate_user,
    set_password,
    unlock_user,
    update_user,
)
from llmops.access.services.projects import (
    archive_project,
    create_project,
    restore_project,
    update_project,
)
from llmops.access.services.second_factors import (
    add_factor,
    offer_factor,
    opened_offer,
    remove_own_factor,
    renew_recovery_codes,
    reset_factor,
    take_code,
)
from llmops.access.services.sessions import (
    end_other_sessions,
    end_own_session,
    end_sessions,
    forget_sign_in,
    key_changed,
    note_seen,
    note_sign_in,
    sign_ins_of,
)

__all__ = [
    "IssuedKey",
    "account_of",
    "activate_user",
    "add_factor",
    "add_member",
    "add_passkey",
    "archive_project",
    "ask_for_passkey",
    "change_own_password",
    "change_role",
    "create_project",
    "create_service_key",
    "create_user",
    "deactivate_user",
    "end_grace",
    "end_other_sessions",
    "end_own_session",
    "end_sessions",
    "factors_of",
    "forget_sign_in",
    "key_changed",
    "note_old_secrets",
    "note_seen",
    "note_sign_in",
    "offer_factor",
    "offer_passkey",
    "opened_offer",
    "pause_service_key",
    "remind_of_graces",
    "remove_member",
    "remove_own_factor",
    "remove_passkey",
    "renew_recovery_codes",
    "reseal",
    "reset_factor",
    "restore_project",
    "resume_resealings",
    "resume_service_key",
    "retire_master_key",
    "revoke_service_key",
    "rotate_service_key",
    "set_password",
    "sign_ins_of",
    "start_resealing",
    "take_code",
    "take_passkey",
    "unlock_user",
    "unreadable_values",
    "update_project",
    "update_service_key",
    "update_user",
]
