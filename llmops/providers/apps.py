from django.apps import AppConfig


class ProvidersConfig(AppConfig):
    name = "llmops.providers"
    label = "providers"
    verbose_name = "Providers and models"
