from django.apps import AppConfig


class ToolsConfig(AppConfig):
    name = "llmops.tools"
    label = "tools"
