from django.db import migrations

from llmops.base.append_only import AppendOnly


class Migration(migrations.Migration):
    dependencies = [("providers", "0001_tables")]
    operations = [AppendOnly("providers_model_config"), AppendOnly("providers_price")]
