from django.apps import AppConfig


class BudgetsConfig(AppConfig):
    name = "llmops.budgets"
    label = "budgets"
    verbose_name = "Budgets"
