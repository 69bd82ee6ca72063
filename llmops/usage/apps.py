from django.apps import AppConfig


class UsageConfig(AppConfig):
    name = "llmops.usage"
    label = "usage"
    verbose_name = "Usage"
