from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("usage", "0005_verdicts_of_policies"),
    ]

    operations = [
        migrations.AddField(
            model_name="call",
            name="tools",
            field=models.JSONField(
                db_default=models.Value([], models.JSONField()),
                default=list,
                help_text="Names of the tools that the model called, each once.",
            ),
        ),
    ]
