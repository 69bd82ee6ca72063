import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

import llmops.core.ids


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="SavedView",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=llmops.core.ids.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                (
                    "page",
                    models.CharField(
                        help_text="Name of the page: reliability, traffic, quality.", max_length=20
                    ),
                ),
                ("name", models.CharField(max_length=60)),
                (
                    "query",
                    models.CharField(
                        blank=True, help_text="Of its address, without the question mark.", max_length=600
                    ),
                ),
                ("made_at", models.DateTimeField(auto_now_add=True)),
                (
                    "owner",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "db_table": "dashboards_saved_view",
                "ordering": ["name"],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("owner", "page", "name"), name="dashboards_saved_view_once"
                    )
                ],
            },
        ),
    ]
