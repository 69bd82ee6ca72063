from django.apps import AppConfig


class DashboardsConfig(AppConfig):
    name = "llmops.dashboards"
    label = "dashboards"
    verbose_name = "Dashboards"
