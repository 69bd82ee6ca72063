from django.db import migrations

from llmops.base.append_only import AppendOnly


class Migration(migrations.Migration):
    dependencies = [("audit", "0001_tables")]
    operations = [AppendOnly("audit_event")]
