"""A tool's own page, for who looks after it."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest

from llmops.tools import services
from tests.cast import COMMAND, signed_in
from tests.tools.making import FUNCTIONS, REFUND, a_tool

pytestmark = [pytest.mark.django_db, pytest.mark.any_engine]


def text_of(answer: Any) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", answer.content.decode()).split())


def test_a_pause_is_shown_with_its_reason(cast: SimpleNamespace, settings: Any) -> None:
    settings.TOOL_FUNCTIONS = FUNCTIONS
    tool = a_tool(cast.support)
    page = f"/admin/tools/tool/{tool.pk}/change/"
    for who in (cast.alice, cast.dan):
        assert "in use" in text_of(signed_in(who).get(page))
    services.pause_tool(COMMAND, tool=tool, reason="The payment provider is down")
    for who in (cast.alice, cast.dan):
        assert "paused: The payment provider is down" in text_of(signed_in(who).get(page))


def test_trying_begins_with_the_examples_of_the_schema(cast: SimpleNamespace, settings: Any) -> None:
    settings.TOOL_FUNCTIONS = FUNCTIONS
    properties = {**REFUND["parameters"]["properties"], "amount": {"type": "number", "examples": [1200, 5]}}
    tool = a_tool(cast.support, parameters={**REFUND["parameters"], "properties": properties}, dry_run=True)
    client = signed_in(cast.alice)
    page = client.get(f"/admin/tools/tool/{tool.pk}/change/").content.decode()
    for label in ("Try it", "Dry run"):
        (address,) = re.findall(rf'href="([^"]+)"[^>]*>(?:\s|<[^>]*>)*{label}', page)
        form = client.get(address).context["form"]
        assert form.initial == {"arguments": {"amount": 1200}}
