from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("budgets", "0005_refusals_are_told"),
    ]

    operations = [
        migrations.AddField(
            model_name="budget",
            name="second_person",
            field=models.BooleanField(
                db_default=False,
                default=False,
                help_text="A higher limit, a soft budget, archiving, and an end of this rule itself take a second person.",
                verbose_name="looser only by two",
            ),
        ),
    ]
