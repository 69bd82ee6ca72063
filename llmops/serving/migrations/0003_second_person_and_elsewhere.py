from django.db import migrations, models

import llmops.core.ids
from llmops.base.append_only import StillAppendOnly


class Migration(migrations.Migration):
    dependencies = [("serving", "0002_append_only")]
    operations = [
        StillAppendOnly("serving_revision"),
        migrations.AddField(
            "revision", "approved_by", models.CharField(blank=True, db_default="", default="", max_length=200)
        ),
        migrations.AddField(
            "revision",
            "origin",
            models.JSONField(
                help_text="Where it was brought from: the number, author, reason and time that it had there.",
                null=True,
            ),
        ),
        StillAppendOnly("serving_revision"),
        migrations.CreateModel(
            "PublishingRule",
            [
                ("id", models.PositiveSmallIntegerField(default=1, primary_key=True, serialize=False)),
                ("always", models.BooleanField(default=False)),
                ("projects", models.JSONField(default=list)),
                ("restore_alone", models.BooleanField(default=True)),
                ("changed_at", models.DateTimeField(auto_now=True)),
            ],
            options={
                "db_table": "serving_publishing_rule",
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("id", 1)), name="serving_publishing_rule_single"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            "BroughtRevision",
            [
                (
                    "id",
                    models.UUIDField(
                        default=llmops.core.ids.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("digest", models.CharField(max_length=64, unique=True)),
                ("document", models.TextField()),
                ("origin", models.JSONField()),
                ("brought_by", models.CharField(max_length=200)),
                ("brought_at", models.DateTimeField()),
            ],
            options={
                "verbose_name": "brought revision",
                "db_table": "serving_brought_revision",
                "ordering": ["-brought_at"],
            },
        ),
        migrations.CreateModel(
            "OrganisationSwitch",
            [
                ("name", models.CharField(max_length=20, primary_key=True, serialize=False)),
                ("since", models.DateTimeField()),
                ("reason", models.CharField(max_length=300)),
                ("by", models.CharField(max_length=200)),
            ],
            options={"db_table": "serving_organisation_switch", "ordering": ["name"]},
        ),
    ]
