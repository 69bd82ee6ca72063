from django.apps import AppConfig


class AlertsConfig(AppConfig):
    name = "llmops.alerts"
    label = "alerts"
