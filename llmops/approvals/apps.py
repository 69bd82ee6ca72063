from django.apps import AppConfig


class ApprovalsConfig(AppConfig):
    name = "llmops.approvals"
    label = "approvals"
