from django.apps import AppConfig


class PlaygroundConfig(AppConfig):
    name = "llmops.playground"
    label = "playground"
    verbose_name = "Playground"
