from django.db import migrations, models

import llmops.core.ids


class Migration(migrations.Migration):
    dependencies = [("audit", "0003_genesis")]

    operations = [
        # Without a default, so that no engine writes the rows anew: the triggers stay, and so does every hash.
        migrations.AddField("event", "origin", models.JSONField(null=True)),
        migrations.CreateModel(
            name="Verification",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=llmops.core.ids.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("running", "Running"),
                            ("intact", "Intact"),
                            ("broken", "Broken"),
                            ("failed", "Failed"),
                        ],
                        default="running",
                        max_length=10,
                    ),
                ),
                ("total", models.BigIntegerField(default=0)),
                ("head_hash", models.CharField(max_length=64)),
                ("sequence", models.BigIntegerField(default=0)),
                ("hash", models.CharField(max_length=64)),
                ("problems", models.JSONField(default=list)),
                ("started_by", models.CharField(max_length=200)),
                ("started_at", models.DateTimeField()),
                ("heartbeat_at", models.DateTimeField()),
                ("finished_at", models.DateTimeField(blank=True, null=True)),
            ],
            options={
                "db_table": "audit_verification",
                "ordering": ["-started_at"],
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("state", "running")),
                        fields=("state",),
                        name="audit_verification_one_at_a_time",
                    )
                ],
            },
        ),
    ]
