from django.db import migrations, models


class Migration(migrations.Migration):
    """Another name for what the column says by now. The table stays as it is, so workers of the version before go on beside it."""

    dependencies = [("tools", "0003_of_run")]

    operations = [
        migrations.AlterField(
            model_name="action",
            name="handed_out_at",
            field=models.DateTimeField(blank=True, db_column="handed_out_at", null=True),
        ),
        migrations.RenameField(model_name="action", old_name="handed_out_at", new_name="due_at"),
    ]
