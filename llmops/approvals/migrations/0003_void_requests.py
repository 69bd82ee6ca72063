from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("approvals", "0002_names")]
    operations = [
        migrations.AlterField(
            model_name="request",
            name="state",
            field=models.CharField(
                choices=[
                    ("open", "Waiting"),
                    ("executed", "Approved and done"),
                    ("rejected", "Rejected"),
                    ("cancelled", "Taken back"),
                    ("expired", "Ran out"),
                    ("void", "Void: something else changed meanwhile"),
                ],
                default="open",
                max_length=10,
            ),
        ),
    ]
