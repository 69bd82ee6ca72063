from django.apps import AppConfig


class ReadinessConfig(AppConfig):
    name = "llmops.readiness"
    label = "readiness"
