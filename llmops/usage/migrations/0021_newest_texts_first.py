"""Kept texts of all projects, newest first. On PostgreSQL the index is built while texts are kept."""

from django.db import migrations, models

_INDEX = models.Index(fields=["-started_at", "-call_id"], name="usage_kept_text_newest")


def build(apps, schema_editor):
    text = apps.get_model("usage", "KeptText")
    if schema_editor.connection.vendor != "postgresql":
        schema_editor.add_index(text, _INDEX)
        return
    # One that was half made when a migration was interrupted would be passed over for ever.
    schema_editor.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {_INDEX.name}")
    schema_editor.execute(str(_INDEX.create_sql(text, schema_editor, concurrently=True)), params=None)


def drop(apps, schema_editor):
    schema_editor.remove_index(apps.get_model("usage", "KeptText"), _INDEX)


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("usage", "0020_texts_of_calls")]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[migrations.RunPython(build, drop)],
            state_operations=[migrations.AddIndex("kepttext", _INDEX)],
        ),
    ]
