"""An index of calls by the request id that their provider gave them: what a provider's support asks for is found at once.

On PostgreSQL it is built for one day after the other while calls are booked; the index of the whole table then takes those in.
"""

from django.db import migrations, models

_INDEX = models.Index(
    fields=["provider_request_id"],
    name="usage_call_provider_request",
    condition=~models.Q(("provider_request_id", "")),
)


def build(apps, schema_editor):
    call = apps.get_model("usage", "Call")
    if schema_editor.connection.vendor == "postgresql":
        with schema_editor.connection.cursor() as cursor:
            cursor.execute(
                "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'usage_call'::regclass"
            )
            for (part,) in cursor.fetchall():
                cursor.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {part}_provider_request")
                cursor.execute(
                    f"CREATE INDEX CONCURRENTLY {part}_provider_request ON {part} (provider_request_id) "
                    "WHERE NOT (provider_request_id = '')"
                )
    schema_editor.add_index(call, _INDEX)


def drop(apps, schema_editor):
    schema_editor.remove_index(apps.get_model("usage", "Call"), _INDEX)


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("usage", "0023_calls_with_signals"),
    ]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[migrations.RunPython(build, drop)],
            state_operations=[migrations.AddIndex(model_name="call", index=_INDEX)],
        ),
    ]
