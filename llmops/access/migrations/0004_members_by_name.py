from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("access", "0003_limits_of_projects")]

    operations = [
        migrations.AlterModelOptions(
            name="membership", options={"ordering": ["user", "project"], "verbose_name": "member"}
        ),
    ]
