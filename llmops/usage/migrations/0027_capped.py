"""How many answers were cut off at the cap that their caller had set. Only catalogues change: a column with a default rewrites no row.
Calls that are there are not told apart, their records do not say whose cap it was."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("usage", "0026_summaries_by_feature"),
    ]

    operations = [
        migrations.AddField(
            model_name=model,
            name="capped",
            field=models.BigIntegerField(db_default=0, default=0),
        )
        for model in ("rollup", "promptrollup")
    ]
