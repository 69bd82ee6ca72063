from django.db import migrations

from llmops.base.append_only import AppendOnly


class Migration(migrations.Migration):
    dependencies = [("prompts", "0001_tables")]
    operations = [AppendOnly("prompts_prompt_version"), AppendOnly("prompts_label_move")]
