from django.apps import AppConfig


class AccessConfig(AppConfig):
    name = "llmops.access"
    label = "access"
    verbose_name = "Access"

    def ready(self) -> None:
        from llmops.access import signals  # noqa: F401
