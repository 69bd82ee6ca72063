"""Everything that changes budgets: what operators decide, what data planes lease, what the ingester books.

Every function that moves money locks the window's row first and then touches its leases; windows are locked in the
order of their ids, budgets before windows. So nothing here can deadlock with itself.
"""

from llmops.budgets.services.booking import OverrunOfCall, SoftCharge, WindowCharge, book, close_leases
from llmops.budgets.services.carrying import carry_over, carry_over_all
from llmops.budgets.services.changes import (
    archive_budget,
    budget_problems,
    create_budget,
    no_such_scope,
    resolved_scope,
    scope_after,
    update_budget,
)
from llmops.budgets.services.corrections import (
    Charged,
    correct_soft,
    correct_windows,
    explain_lease,
    lock_windows,
)
from llmops.budgets.services.leases import (
    LeaseState,
    WindowState,
    give_back,
    lease,
    open_window,
    read_lease,
    reap_leases,
    renew_leases,
)
from llmops.budgets.services.loosening import ask_loosening
from llmops.budgets.services.notices import send_notices
from llmops.budgets.services.raises import ask_raise, end_raises

__all__ = [
    "Charged",
    "LeaseState",
    "OverrunOfCall",
    "SoftCharge",
    "WindowCharge",
    "WindowState",
    "archive_budget",
    "ask_loosening",
    "ask_raise",
    "book",
    "budget_problems",
    "carry_over",
    "carry_over_all",
    "close_leases",
    "correct_soft",
    "correct_windows",
    "create_budget",
    "end_raises",
    "explain_lease",
    "give_back",
    "lease",
    "lock_windows",
    "no_such_scope",
    "open_window",
    "read_lease",
    "reap_leases",
    "renew_leases",
    "resolved_scope",
    "scope_after",
    "send_notices",
    "update_budget",
]
