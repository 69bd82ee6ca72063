"""An index of the calls whose record says something of their answer's quality, in the order in which lists show them.

On PostgreSQL it is built for one day after the other while calls are booked; the index of the whole table then takes those in.
Before, the column's check is held against the calls that are there, which also lets calls be booked.
"""

from django.db import migrations, models

_INDEX = models.Index(
    fields=["-started_at", "-id"], name="usage_call_signals", condition=models.Q(("signals__gt", 0))
)


def build(apps, schema_editor):
    call = apps.get_model("usage", "Call")
    if schema_editor.connection.vendor == "postgresql":
        with schema_editor.connection.cursor() as cursor:
            cursor.execute("ALTER TABLE usage_call VALIDATE CONSTRAINT usage_call_signals_check")
            cursor.execute(
                "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'usage_call'::regclass"
            )
            for (part,) in cursor.fetchall():
                cursor.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {part}_signals")
                cursor.execute(
                    f"CREATE INDEX CONCURRENTLY {part}_signals ON {part} (started_at DESC, id DESC) WHERE signals > 0"
                )
    schema_editor.add_index(call, _INDEX)


def drop(apps, schema_editor):
    schema_editor.remove_index(apps.get_model("usage", "Call"), _INDEX)


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("usage", "0022_quality_and_timing"),
    ]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[migrations.RunPython(build, drop)],
            state_operations=[migrations.AddIndex(model_name="call", index=_INDEX)],
        ),
    ]
