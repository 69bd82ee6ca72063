from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("access", "0008_how_people_signed_in")]

    operations = [
        migrations.AddField(
            model_name="servicekey",
            name="held_by_console",
            field=models.BooleanField(
                db_default=False,
                default=False,
                editable=False,
                help_text="The console made it for its own calls and holds its secret; nobody is ever shown it.",
            ),
        ),
    ]
