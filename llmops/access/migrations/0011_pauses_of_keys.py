from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("access", "0010_passkeys")]
    operations = [
        migrations.AddField(
            "servicekey", "paused_at", models.DateTimeField(blank=True, editable=False, null=True)
        ),
        migrations.AddField(
            "servicekey",
            "pause_reason",
            models.CharField(blank=True, db_default="", default="", editable=False, max_length=300),
        ),
    ]
