"""A breaker may be open for the calls of one project alone."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("providers", "0010_model_trials"),
    ]

    operations = [
        migrations.AddField(
            model_name="openbreaker",
            name="project",
            field=models.CharField(blank=True, db_default="", default="", max_length=63),
        ),
        migrations.RemoveConstraint(model_name="openbreaker", name="providers_open_breaker_once"),
        migrations.AddConstraint(
            model_name="openbreaker",
            constraint=models.UniqueConstraint(
                fields=("process", "route", "model", "project"), name="providers_open_breaker_once"
            ),
        ),
    ]
