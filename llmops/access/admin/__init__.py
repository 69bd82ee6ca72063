"""Projects, service keys, members and accounts in the admin."""

from django.contrib import admin
from django.contrib.auth import admin as _django_registers_here  # noqa: F401
from django.contrib.auth.models import Group, User

# Roles take the place of Django's groups, and accounts change through services.
admin.site.unregister(User)
admin.site.unregister(Group)

from llmops.access.admin import keys, master_keys, people, projects  # noqa: E402, F401
