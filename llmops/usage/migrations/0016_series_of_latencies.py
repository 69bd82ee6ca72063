"""An index in the order in which series of percentiles are ranked. On PostgreSQL it is built while calls are booked."""

from django.db import migrations, models

_INDEX = models.Index(
    condition=models.Q(("granularity__gt", 60)),
    fields=["granularity", "bucket", "metric", "log_bucket"],
    name="usage_latency_series",
)


def build(apps, schema_editor):
    rollup = apps.get_model("usage", "LatencyRollup")
    if schema_editor.connection.vendor != "postgresql":
        schema_editor.add_index(rollup, _INDEX)
        return
    with schema_editor.connection.cursor() as cursor:
        # One that was half made when a migration was interrupted would be passed over for ever.
        cursor.execute("DROP INDEX CONCURRENTLY IF EXISTS usage_latency_series")
    schema_editor.execute(rollup_index(rollup, schema_editor), params=None)


def rollup_index(rollup, schema_editor):
    return str(_INDEX.create_sql(rollup, schema_editor, concurrently=True))


def drop(apps, schema_editor):
    schema_editor.remove_index(apps.get_model("usage", "LatencyRollup"), _INDEX)


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("usage", "0015_provider_statements"),
    ]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[migrations.RunPython(build, drop)],
            state_operations=[migrations.AddIndex(model_name="latencyrollup", index=_INDEX)],
        ),
    ]
