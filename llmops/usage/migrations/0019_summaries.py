"""Summaries of rollups for pages. Whatever hours and days there are already is noted as behind, so that workers make their
summaries by and by, newest first; until then pages read the rollups. Only the new tables are locked."""

from django.db import migrations, models

_NOTE_ALL = """
INSERT INTO usage_stale_summary (granularity, bucket)
SELECT DISTINCT granularity, bucket FROM usage_rollup WHERE granularity IN (3600, 86400)
"""


class Migration(migrations.Migration):
    dependencies = [
        ("usage", "0018_prompts_of_calls"),
    ]

    operations = [
        migrations.CreateModel(
            name="Summary",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("granularity", models.PositiveIntegerField(help_text="Length of the bucket in seconds.")),
                ("bucket", models.DateTimeField()),
                ("project_id", models.UUIDField()),
                ("dimension", models.CharField(blank=True, max_length=5)),
                ("value", models.CharField(blank=True, max_length=63)),
                (
                    "counts",
                    models.TextField(
                        help_text="JSON: [status, error code, whether a model worked, sums in the order of Rollup.SUMS] each."
                    ),
                ),
                (
                    "total",
                    models.BinaryField(help_text="Sketch of durations, as core.sketches stores it."),
                ),
                ("ttft", models.BinaryField()),
                ("overhead", models.BinaryField()),
            ],
            options={
                "db_table": "usage_summary",
                "indexes": [models.Index(fields=["granularity", "bucket"], name="usage_summary_bucket")],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("granularity", "project_id", "dimension", "bucket", "value"),
                        name="usage_summary_once",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="StaleSummary",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("granularity", models.PositiveIntegerField()),
                ("bucket", models.DateTimeField()),
            ],
            options={
                "db_table": "usage_stale_summary",
                "indexes": [
                    models.Index(fields=["granularity", "bucket"], name="usage_stale_summary_bucket")
                ],
            },
        ),
        migrations.RunSQL(_NOTE_ALL, migrations.RunSQL.noop),
    ]
