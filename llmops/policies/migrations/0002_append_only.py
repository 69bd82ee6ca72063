from django.db import migrations

from llmops.base.append_only import AppendOnly


class Migration(migrations.Migration):
    dependencies = [("policies", "0001_tables")]
    operations = [AppendOnly("policies_policy_version")]
