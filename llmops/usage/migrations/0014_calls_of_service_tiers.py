"""An index of the calls that have a service tier: few, and priced apart.

On PostgreSQL it is built for one day after the other while calls are booked; the index of the whole table then takes those in.
"""

from django.db import migrations, models

_INDEX = models.Index(
    condition=models.Q(("service_tier", ""), _negated=True),
    fields=["model", "started_at"],
    name="usage_call_tiered",
)


def build(apps, schema_editor):
    call = apps.get_model("usage", "Call")
    if schema_editor.connection.vendor == "postgresql":
        with schema_editor.connection.cursor() as cursor:
            cursor.execute(
                "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'usage_call'::regclass"
            )
            for (part,) in cursor.fetchall():
                cursor.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {part}_tiered")
                cursor.execute(
                    f"CREATE INDEX CONCURRENTLY {part}_tiered ON {part} (model, started_at) WHERE NOT (service_tier = '')"
                )
    schema_editor.add_index(call, _INDEX)


def drop(apps, schema_editor):
    schema_editor.remove_index(apps.get_model("usage", "Call"), _INDEX)


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("usage", "0013_minutes_that_are_gone"),
    ]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[migrations.RunPython(build, drop)],
            state_operations=[migrations.AddIndex(model_name="call", index=_INDEX)],
        ),
    ]
