"""An index for each way to look through the trail. On PostgreSQL they are built while events are recorded."""

from django.db import migrations, models

_INDEXES = [
    models.Index(fields=["object_type", "object_id", "sequence"], name="audit_event_of_object"),
    models.Index(fields=["actor_id", "sequence"], name="audit_event_by_actor"),
    models.Index(fields=["action", "sequence"], name="audit_event_by_action"),
    models.Index(fields=["project_id", "sequence"], name="audit_event_by_project"),
    models.Index(fields=["ip", "sequence"], name="audit_event_from_ip"),
    models.Index(fields=["request_id", "sequence"], name="audit_event_of_request"),
]
_FORMER = models.Index(fields=["object_type", "object_id"], name="audit_event_object")


def build(apps, schema_editor):
    _build(apps, schema_editor, _INDEXES)
    schema_editor.remove_index(apps.get_model("audit", "Event"), _FORMER)


def drop(apps, schema_editor):
    _build(apps, schema_editor, [_FORMER])
    for index in _INDEXES:
        schema_editor.remove_index(apps.get_model("audit", "Event"), index)


def _build(apps, schema_editor, indexes):
    event = apps.get_model("audit", "Event")
    for index in indexes:
        if schema_editor.connection.vendor != "postgresql":
            schema_editor.add_index(event, index)
            continue
        # One that was half made when a migration was interrupted would be passed over for ever.
        schema_editor.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {index.name}")
        schema_editor.execute(str(index.create_sql(event, schema_editor, concurrently=True)), params=None)


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("audit", "0004_origins_and_verifications")]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[migrations.RunPython(build, drop)],
            state_operations=[
                migrations.RemoveIndex("event", "audit_event_object"),
                *(migrations.AddIndex("event", index) for index in _INDEXES),
            ],
        ),
    ]
