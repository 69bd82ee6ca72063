import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

import llmops.core.ids


class Migration(migrations.Migration):
    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
        ("access", "0009_keys_of_the_console"),
    ]

    operations = [
        migrations.CreateModel(
            name="Passkey",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=llmops.core.ids.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("updated_at", models.DateTimeField(auto_now=True)),
                ("name", models.CharField(max_length=80)),
                ("credential_id", models.CharField(editable=False, max_length=1400, unique=True)),
                ("credential", models.TextField(editable=False)),
                ("sign_count", models.BigIntegerField(default=0, editable=False)),
                ("transports", models.JSONField(default=list, editable=False)),
                ("synced", models.BooleanField(default=False, editable=False)),
                ("last_used_at", models.DateTimeField(editable=False, null=True)),
                (
                    "user",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="passkeys",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "db_table": "access_passkey",
                "ordering": ["created_at"],
            },
        ),
    ]
