import django.db.models.deletion
from django.db import migrations, models

from llmops.base.append_only import AppendOnly


class Migration(migrations.Migration):
    dependencies = [
        ("usage", "0014_calls_of_service_tiers"),
    ]

    operations = [
        migrations.CreateModel(
            name="ProviderImport",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("provider", models.CharField(max_length=63)),
                (
                    "source",
                    models.CharField(choices=[("csv", "File"), ("api", "Provider's API")], max_length=10),
                ),
                ("file_name", models.CharField(blank=True, max_length=200)),
                ("digest", models.CharField(help_text="SHA-256 of what was read.", max_length=64)),
                ("has_tokens", models.BooleanField()),
                ("has_cost", models.BooleanField()),
                ("first_day", models.DateField()),
                ("last_day", models.DateField()),
                ("imported_at", models.DateTimeField()),
                ("imported_by", models.CharField(max_length=200)),
            ],
            options={
                "db_table": "usage_provider_import",
                "ordering": ["-id"],
            },
        ),
        migrations.CreateModel(
            name="ProviderFigure",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("provider", models.CharField(max_length=63)),
                ("day", models.DateField()),
                ("model", models.CharField(blank=True, max_length=120)),
                ("requests", models.BigIntegerField(default=0)),
                ("input_tokens", models.BigIntegerField(default=0)),
                ("cached_input_tokens", models.BigIntegerField(default=0)),
                ("output_tokens", models.BigIntegerField(default=0)),
                ("cost_nano", models.BigIntegerField(null=True)),
                (
                    "statement",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="figures",
                        to="usage.providerimport",
                    ),
                ),
            ],
            options={
                "db_table": "usage_provider_figure",
                "ordering": ["day", "model"],
                "indexes": [models.Index(fields=["provider", "day"], name="usage_provider_figure_day")],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("statement", "day", "model"), name="usage_provider_figure_once"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="DriftAlert",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("provider", models.CharField(max_length=63)),
                ("day", models.DateField()),
                ("model", models.CharField(blank=True, max_length=120)),
                ("what", models.CharField(choices=[("tokens", "Tokens"), ("cost", "Cost")], max_length=10)),
                (
                    "ledger",
                    models.BigIntegerField(help_text="Tokens or nanodollars, as the ledger has them."),
                ),
                ("stated", models.BigIntegerField(help_text="The same, as the provider says.")),
                ("raised_at", models.DateTimeField()),
                (
                    "statement",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="alerts",
                        to="usage.providerimport",
                    ),
                ),
            ],
            options={
                "db_table": "usage_drift_alert",
                "ordering": ["-id"],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("statement", "day", "model", "what"), name="usage_drift_alert_once"
                    )
                ],
            },
        ),
        AppendOnly("usage_provider_import"),
        AppendOnly("usage_provider_figure"),
    ]
