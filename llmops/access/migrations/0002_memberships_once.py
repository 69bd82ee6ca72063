"""A person has a role once in a place, on SQLite too, which had no constraint for it."""

from typing import Any

from django.conf import settings
from django.db import migrations, models


def drop_duplicates(apps: Any, schema_editor: Any) -> None:
    """The same role given twice says nothing more than once: keep the first."""
    Membership = apps.get_model("access", "Membership")
    seen = set()
    for pk, *place in Membership.objects.order_by("created_at", "pk").values_list(
        "pk", "user_id", "project_id", "role"
    ):
        if tuple(place) in seen:
            Membership.objects.filter(pk=pk).delete()
        seen.add(tuple(place))


class Migration(migrations.Migration):
    dependencies = [("access", "0001_tables"), migrations.swappable_dependency(settings.AUTH_USER_MODEL)]

    operations = [
        migrations.RunPython(drop_duplicates, migrations.RunPython.noop),
        migrations.RemoveConstraint(model_name="membership", name="access_membership_once"),
        migrations.AddConstraint(
            model_name="membership",
            constraint=models.UniqueConstraint(
                condition=models.Q(("project__isnull", False)),
                fields=("user", "project", "role"),
                name="access_membership_once_in_project",
            ),
        ),
        migrations.AddConstraint(
            model_name="membership",
            constraint=models.UniqueConstraint(
                condition=models.Q(("project__isnull", True)),
                fields=("user", "role"),
                name="access_membership_once_everywhere",
            ),
        ),
    ]
