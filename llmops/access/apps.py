from django.apps import AppConfig


class AccessConfig(AppConfig):
    name = "llmops.access"
    label = "access"
    verbose_name = "Access"
