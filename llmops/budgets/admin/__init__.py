"""Pages of budgets."""

from llmops.budgets.admin.afterwards import LeaseAdmin, OverrunAdmin
from llmops.budgets.admin.budgets import BudgetAdmin

__all__ = ["BudgetAdmin", "LeaseAdmin", "OverrunAdmin"]
