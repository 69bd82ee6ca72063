"""What the quality of answers and the time of calls are told by.

Only catalogues change, so that the tables are locked for a moment: the check of the new column of calls is not held against
the calls that are there, which would read all of them under a lock that nobody gets past. The next migration does that.
"""

from django.db import migrations, models

_CHECK = "usage_call_signals_check"


class AddSignals(migrations.AddField):
    def database_forwards(self, app_label, schema_editor, from_state, to_state):
        if schema_editor.connection.vendor != "postgresql":
            super().database_forwards(app_label, schema_editor, from_state, to_state)
            return
        schema_editor.execute(
            "ALTER TABLE usage_call ADD COLUMN signals integer DEFAULT 0 NOT NULL, "
            f"ADD CONSTRAINT {_CHECK} CHECK (signals >= 0) NOT VALID"
        )


class Migration(migrations.Migration):
    dependencies = [
        ("usage", "0021_newest_texts_first"),
    ]

    operations = [
        migrations.CreateModel(
            name="PromptRollup",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("granularity", models.PositiveIntegerField()),
                ("bucket", models.DateTimeField()),
                ("project_id", models.UUIDField()),
                ("key_id", models.UUIDField()),
                ("route", models.CharField(max_length=63)),
                ("model", models.CharField(max_length=63)),
                ("feature", models.CharField(max_length=100)),
                ("prompt_name", models.CharField(max_length=63)),
                ("prompt_version", models.PositiveIntegerField(help_text="0: of which one is not known.")),
                ("calls", models.BigIntegerField(default=0)),
                ("failed", models.BigIntegerField(default=0)),
                ("refused", models.BigIntegerField(default=0)),
                ("input_tokens", models.BigIntegerField(default=0)),
                ("output_tokens", models.BigIntegerField(default=0)),
                ("cost_nano", models.BigIntegerField(default=0)),
                ("truncated", models.BigIntegerField(default=0)),
                ("filtered", models.BigIntegerField(default=0)),
                ("declined", models.BigIntegerField(default=0)),
                ("schema_failed", models.BigIntegerField(default=0)),
                ("lazy", models.BigIntegerField(default=0)),
                ("repaired", models.BigIntegerField(default=0)),
                ("flagged", models.BigIntegerField(default=0)),
                ("redacted", models.BigIntegerField(default=0)),
                ("blocked", models.BigIntegerField(default=0)),
            ],
            options={
                "db_table": "usage_prompt_rollup",
            },
        ),
        AddSignals(
            model_name="call",
            name="signals",
            field=models.PositiveIntegerField(
                db_default=0,
                default=0,
                help_text="What the record says of the answer's quality: bits of usage.signals.",
            ),
        ),
        migrations.AddField(
            model_name="rollup",
            name="blocked",
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        migrations.AddField(
            model_name="rollup",
            name="busy_us",
            field=models.BigIntegerField(
                db_default=0,
                default=0,
                help_text="How long all calls took together: by the length of the bucket, calls at a time.",
            ),
        ),
        migrations.AddField(
            model_name="rollup",
            name="declined",
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        migrations.AddField(
            model_name="rollup",
            name="filtered",
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        migrations.AddField(
            model_name="rollup",
            name="flagged",
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        migrations.AddField(
            model_name="rollup",
            name="lazy",
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        migrations.AddField(
            model_name="rollup",
            name="queue_us",
            field=models.BigIntegerField(db_default=0, default=0, help_text="Of that, waiting for a place."),
        ),
        migrations.AddField(
            model_name="rollup",
            name="queued_calls",
            field=models.BigIntegerField(
                db_default=0,
                default=0,
                help_text="Calls of any outcome that waited for a place for a millisecond or longer.",
            ),
        ),
        migrations.AddField(
            model_name="rollup",
            name="redacted",
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        migrations.AddField(
            model_name="rollup",
            name="repaired",
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        migrations.AddField(
            model_name="rollup",
            name="schema_failed",
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        migrations.AddField(
            model_name="rollup",
            name="timed_calls",
            field=models.BigIntegerField(
                db_default=0,
                default=0,
                help_text="Answered calls of which is known how long the provider took.",
            ),
        ),
        migrations.AddField(
            model_name="rollup",
            name="timed_us",
            field=models.BigIntegerField(db_default=0, default=0, help_text="How long those took together."),
        ),
        migrations.AddField(
            model_name="rollup",
            name="truncated",
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        migrations.AddField(
            model_name="rollup",
            name="upstream_us",
            field=models.BigIntegerField(db_default=0, default=0, help_text="Of that, with providers."),
        ),
        migrations.AddConstraint(
            model_name="promptrollup",
            constraint=models.UniqueConstraint(
                fields=(
                    "granularity",
                    "bucket",
                    "project_id",
                    "key_id",
                    "route",
                    "model",
                    "feature",
                    "prompt_name",
                    "prompt_version",
                ),
                name="usage_prompt_rollup_once",
            ),
        ),
    ]
