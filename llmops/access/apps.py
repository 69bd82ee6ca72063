from django.apps import AppConfig


class AccessConfig(AppConfig):
    name = "llmops.access"
    label = "access"
    verbose_name = "Access"

    def ready(self) -> None:
        from llmops.access import signals  # noqa: F401, I001
        from llmops.access import pauses  # noqa: F401
