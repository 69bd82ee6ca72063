"""Whatever can be configured can be exported, and its file has nothing to do where it came from."""

from __future__ import annotations

import re

import pytest
import yaml
from django.db import transaction
from hypothesis import HealthCheck, given

from console.declarative import schema
from console.declarative.alerting import CHANNEL
from console.declarative.apply import apply_text
from console.declarative.export import export_text
from console.declarative.state import read_state
from tests.apply.drawn.configurations import configurations
from tests.cast import last_sequence
from tests.configuring import OPERATOR
from tests.trying import tries

pytestmark = pytest.mark.django_db
CHAT = "https://chat.example.com/services/T0/B0"


class _Undone(Exception):
    pass


@given(configurations())
@pytest.mark.timeout(600)
@tries(25, at_least=6, suppress_health_check=list(HealthCheck))
def test_an_exported_file_has_nothing_to_do_and_makes_the_same_elsewhere(configuration):
    text = yaml.safe_dump(configuration, allow_unicode=True, sort_keys=False)
    environment = {"SOME_KEY": "sk-some-key-0123456789", "SOME_CHAT": CHAT}
    with pytest.raises(_Undone), transaction.atomic():
        apply_text(OPERATOR, text, environment=environment)
        exported, before = export_text(read_state()), last_sequence()
        assert apply_text(OPERATOR, text, environment=environment).nothing_to_do
        assert apply_text(OPERATOR, exported, environment={}).nothing_to_do
        assert last_sequence() == before
        assert export_text(read_state()) == exported
        raise _Undone
    # On an installation that has none of it, with a secret for each service key.
    variables = {
        entry.values["secret"].value: f"another-service-key-{number}-0123456789"
        for number, entry in enumerate(schema.read(exported))
        if entry.kind == "service key"
    }
    chats = [
        one.values["secret"].value
        for one in schema.read(exported)
        if one.kind == CHANNEL and one.values["secret"]
    ]
    variables |= dict.fromkeys(chats, CHAT)
    expected = len([entry for entry in schema.read(exported) if entry.kind == "service key"])
    if len(variables) < expected + len(set(chats)):
        # Two names that differ only where a variable's name cannot: one variable, one key.
        return
    with pytest.raises(_Undone), transaction.atomic():
        apply_text(OPERATOR, exported, environment=variables)
        assert export_text(read_state()) == exported
        raise _Undone


@given(configurations())
@tries(20, at_least=6, suppress_health_check=list(HealthCheck))
def test_what_is_written_is_read_as_the_same(configuration):
    text = yaml.safe_dump(configuration, allow_unicode=True, sort_keys=False)
    entries = schema.read(text)
    assert len({(entry.kind, entry.key) for entry in entries}) == len(entries)
    lines = text.splitlines()
    for entry in entries:
        assert re.match(r"\s*(- |\{|[a-z_]+:)", lines[entry.line - 1]), lines[entry.line - 1]
