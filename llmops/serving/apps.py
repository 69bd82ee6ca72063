from django.apps import AppConfig


class ServingConfig(AppConfig):
    name = "llmops.serving"
    label = "serving"
    verbose_name = "Serving"
