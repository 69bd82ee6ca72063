"""Keys are for the place where their provider was when they were given; those of today for where it is now."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from django.db import migrations, models

_PORTS = {"http": 80, "https": 443}


def origin_of(url: str) -> str:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return ""
    host = (parts.hostname or "").rstrip(".")
    if parts.scheme not in _PORTS or not host:
        return ""
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}" + ("" if port in (None, _PORTS[parts.scheme]) else f":{port}")


def keys_of_today(apps: Any, schema_editor: Any) -> None:
    for provider in apps.get_model("providers", "Provider").objects.all():
        provider.credentials.update(origin=origin_of(provider.base_url))


class Migration(migrations.Migration):
    dependencies = [
        ("providers", "0008_rotations"),
    ]

    operations = [
        migrations.AddField(
            model_name="credential",
            name="origin",
            field=models.CharField(
                blank=True,
                db_default="",
                default="",
                editable=False,
                max_length=300,
                verbose_name="given for",
            ),
        ),
        migrations.RunPython(keys_of_today, migrations.RunPython.noop),
    ]
