from django.apps import AppConfig
from django.conf import settings
from django.contrib.admin.apps import AdminConfig


class ConsoleConfig(AppConfig):
    name = "console"
    default = True

    def ready(self) -> None:
        from console import checks  # noqa: F401

        if not settings.BACKGROUND:
            from console.omitted import load_without

            # Before the apps that would load them whole.
            load_without()


class ConsoleAdminConfig(AdminConfig):
    default_site = "console.admin_site.ConsoleAdminSite"
    default = False
