from django.apps import AppConfig


class PoliciesConfig(AppConfig):
    name = "llmops.policies"
    label = "policies"
    verbose_name = "Policies"
