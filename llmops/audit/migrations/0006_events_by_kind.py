"""The trail of one kind of object, in its order. On PostgreSQL the index is built while events are recorded."""

from django.db import migrations, models

_INDEX = models.Index(fields=["object_type", "sequence"], name="audit_event_by_kind")


def build(apps, schema_editor):
    event = apps.get_model("audit", "Event")
    if schema_editor.connection.vendor != "postgresql":
        schema_editor.add_index(event, _INDEX)
        return
    # One that was half made when a migration was interrupted would be passed over for ever.
    schema_editor.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {_INDEX.name}")
    schema_editor.execute(str(_INDEX.create_sql(event, schema_editor, concurrently=True)), params=None)


def drop(apps, schema_editor):
    schema_editor.remove_index(apps.get_model("audit", "Event"), _INDEX)


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("audit", "0005_ways_through_the_trail")]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[migrations.RunPython(build, drop)],
            state_operations=[migrations.AddIndex("event", _INDEX)],
        ),
    ]
