from django.apps import AppConfig


class GatewayConfig(AppConfig):
    name = "llmops.gateway"
    label = "gateway"
    verbose_name = "Data plane"
