"""Summaries by feature as well. Those of hours and days that are there know of none: they are noted as behind, so that workers make them
anew by and by, newest first; until then pages read the rollups. Longer columns rewrite no row on PostgreSQL."""

from django.db import migrations, models

_NOTE_ALL = """
INSERT INTO usage_stale_summary (granularity, bucket)
SELECT DISTINCT granularity, bucket FROM usage_summary WHERE granularity IN (3600, 86400)
"""
_FORGET = "DELETE FROM usage_summary WHERE dimension = 'feature'"


class Migration(migrations.Migration):
    dependencies = [
        ("usage", "0025_answers_and_replays"),
    ]

    operations = [
        migrations.AlterField(
            model_name="summary",
            name="dimension",
            field=models.CharField(blank=True, max_length=7),
        ),
        migrations.AlterField(
            model_name="summary",
            name="value",
            field=models.CharField(blank=True, max_length=100),
        ),
        migrations.RunSQL(_NOTE_ALL, _FORGET),
    ]
