"""What a person reads on a page."""

from __future__ import annotations

import re
from typing import Any

from django.test import Client

OWN_PAGES = ("/", "/calls/", "/jobs/")


def text_of(answer: Any) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", answer.content.decode()))


def listed(client: Client, address: str) -> list[str]:
    """Ids of every call that a list shows, over all of its pages."""
    found: list[str] = []
    while address:
        page = client.get(address)
        assert page.status_code == 200, address
        assert 'class="notice' not in page.content.decode(), text_of(page)[:500]
        found += re.findall(r'data-key="([0-9a-f-]{36})"', page.content.decode())
        older = page.context["older"]
        address = older
    return found
