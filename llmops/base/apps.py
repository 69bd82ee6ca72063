from django.apps import AppConfig


class BaseConfig(AppConfig):
    name = "llmops.base"
    label = "base"
    verbose_name = "Ground"
