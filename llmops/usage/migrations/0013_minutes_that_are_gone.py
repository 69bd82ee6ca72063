from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("usage", "0012_corrections"),
    ]

    operations = [
        migrations.AlterField(
            model_name="retentionmark",
            name="calls_since",
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name="retentionmark",
            name="minutes_since",
            field=models.DateTimeField(null=True),
        ),
    ]
