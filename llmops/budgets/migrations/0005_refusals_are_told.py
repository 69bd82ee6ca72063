from django.db import migrations, models

from llmops.base.append_only import StillAppendOnly


class Migration(migrations.Migration):
    dependencies = [
        ("budgets", "0004_corrections"),
    ]

    operations = [
        StillAppendOnly("budgets_threshold_crossing"),
        migrations.AddField(
            model_name="thresholdcrossing",
            name="refusing",
            field=models.BooleanField(db_default=False, default=False),
        ),
        migrations.RemoveConstraint(
            model_name="thresholdcrossing",
            name="budgets_threshold_crossing_once",
        ),
        migrations.AddConstraint(
            model_name="thresholdcrossing",
            constraint=models.UniqueConstraint(
                fields=("window", "percent", "limit_nano", "refusing"), name="budgets_threshold_crossing_once"
            ),
        ),
        StillAppendOnly("budgets_threshold_crossing"),
    ]
