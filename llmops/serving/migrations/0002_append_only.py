from django.db import migrations

from llmops.base.append_only import AppendOnly


class Migration(migrations.Migration):
    dependencies = [("serving", "0001_tables")]
    operations = [AppendOnly("serving_revision")]
