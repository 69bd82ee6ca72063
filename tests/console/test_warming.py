"""A new process compiles what is configured before anybody looks, and starts all the same when that fails."""

from __future__ import annotations

import pytest

from console import warming
from llmops.prompts import services as prompts
from llmops.serving import pieces
from llmops.serving.selectors import pending_note
from tests.cast import COMMAND

CONTENT = {"system": "You greet.", "user": "{{ name }}"}


@pytest.mark.django_db(transaction=True)
def test_what_is_configured_is_kept_before_the_first_look(monkeypatch):
    monkeypatch.setattr(pieces, "_kept", {})
    prompt = prompts.create_prompt(COMMAND, slug="greeting", content=CONTENT)
    thread = warming.begin()
    thread.join(60)
    assert not thread.is_alive()
    assert list(pieces._kept) == [prompt.pk]
    assert pending_note().changes == 1


def test_a_database_that_cannot_be_read_keeps_nobody_from_starting(monkeypatch, caplog):
    def away():
        raise OSError("no such place")

    monkeypatch.setattr(warming, "pending_note", away)
    with caplog.at_level("INFO", logger="console.warming"):
        warming.begin().join(60)
    assert "could not be compiled beforehand: OSError" in caplog.text
