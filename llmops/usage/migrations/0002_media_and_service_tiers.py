from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("usage", "0001_tables"),
    ]

    operations = [
        migrations.AddField(
            model_name="call",
            name="audio_input_tokens",
            field=models.PositiveIntegerField(db_default=0, default=0),
        ),
        migrations.AddField(
            model_name="call",
            name="audio_output_tokens",
            field=models.PositiveIntegerField(db_default=0, default=0),
        ),
        migrations.AddField(
            model_name="call",
            name="characters",
            field=models.PositiveIntegerField(
                db_default=0, default=0, help_text="Characters of text that was spoken."
            ),
        ),
        migrations.AddField(
            model_name="call",
            name="image_input_tokens",
            field=models.PositiveIntegerField(db_default=0, default=0),
        ),
        migrations.AddField(
            model_name="call",
            name="image_output_tokens",
            field=models.PositiveIntegerField(db_default=0, default=0),
        ),
        migrations.AddField(
            model_name="call",
            name="images",
            field=models.PositiveIntegerField(db_default=0, default=0, help_text="Images that were made."),
        ),
        migrations.AddField(
            model_name="call",
            name="seconds",
            field=models.PositiveIntegerField(
                db_default=0, default=0, help_text="Seconds of audio that was heard."
            ),
        ),
        migrations.AddField(
            model_name="call",
            name="service_tier",
            field=models.CharField(
                blank=True, db_default="", default="", help_text="Empty for the default one.", max_length=16
            ),
        ),
        migrations.AddField(
            model_name="rollup",
            name="audio_input_tokens",
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        migrations.AddField(
            model_name="rollup",
            name="audio_output_tokens",
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        migrations.AddField(
            model_name="rollup",
            name="characters",
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        migrations.AddField(
            model_name="rollup",
            name="image_input_tokens",
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        migrations.AddField(
            model_name="rollup",
            name="image_output_tokens",
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        migrations.AddField(
            model_name="rollup",
            name="images",
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        migrations.AddField(
            model_name="rollup",
            name="seconds",
            field=models.BigIntegerField(db_default=0, default=0),
        ),
    ]
