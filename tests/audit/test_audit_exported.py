"""The Audit pages: taking the trail away, and what is made of the file elsewhere."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys

import pytest

from llmops.access import services
from llmops.audit import chain, export
from llmops.audit.services import as_exported
from llmops.core.digests import digest
from tests.audit.trail import write
from tests.cast import COMMAND, acting, no_event, one_event, signed_in

pytestmark = pytest.mark.django_db


def test_the_chain_from_the_page_is_verified_by_the_file_that_the_page_gives_and_nothing_else(told, tmp_path):
    client = signed_in(told.root, headers={"user-agent": "Ünïcode \u2028 agent"})
    with one_event("audit.exported") as seen:
        answer = client.post("/audit/export/", {"what": "chain"})
        trail = b"".join(answer.streaming_content)
    (tmp_path / "trail.jsonl").write_bytes(trail)
    (tmp_path / "verify_audit.py").write_bytes(client.get("/audit/verify_audit.py").content)
    (tmp_path / "broken.jsonl").write_bytes(trail.replace(b"alice", b"mally"))
    # -I -S: no packages, no paths of ours.
    run = [sys.executable, "-I", "-S", "verify_audit.py"]
    outcomes = [
        subprocess.run([*run, name], cwd=tmp_path, capture_output=True, text=True, env={}, check=False)
        for name in ("trail.jsonl", "broken.jsonl", "none.jsonl")
    ]
    assert [one.returncode for one in outcomes] == [0, 1, 2], outcomes
    assert f"hash {seen.event.prev_hash}" in outcomes[0].stdout
    assert "altered" in outcomes[1].stdout


def test_the_chain_of_a_time_says_where_it_begins(cast, tmp_path, capsys):
    write(3)
    file = tmp_path / "part.jsonl"
    file.write_text("\n".join(part for part in export.lines(first=3)))
    assert chain.main([str(file)]) == 0
    assert "begins at event 3" in capsys.readouterr().out


@pytest.mark.any_engine
def test_what_is_found_is_taken_as_csv_that_no_spreadsheet_runs(told):
    services.update_project(acting(told.alice), project=told.support, name="=cmd|'/c calc'!A1")
    dan = signed_in(told.dan)
    with one_event("audit.exported") as seen:
        text = b"".join(dan.post("/audit/export/", {"what": "csv"}).streaming_content).decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert seen.event.project_id == told.support.pk
    assert {row["project_id"] for row in rows} == {str(told.support.pk)}
    assert rows[-1]["action"] == "audit.exported"
    assert [row["object_name"] for row in rows if row["object_name"].startswith(("=", "+", "@"))] == []
    assert "ranker" not in text
    only = signed_in(told.root).post("/audit/export/", {"what": "csv", "action": "service_key.changed"})
    assert len(b"".join(only.streaming_content).splitlines()) == 2


@pytest.mark.any_engine
def test_what_was_narrowed_to_is_on_the_record_beside_the_kind_of_file(told):
    root = signed_in(told.root)
    narrowed = {"kind": "access.servicekey", "object": str(told.key.pk)}
    with one_event("audit.exported") as seen:
        taken = root.post("/audit/export/", {"what": "x" * 5_000, **narrowed})
    assert taken.status_code == 200 and len(b"".join(taken.streaming_content).splitlines()) == 3
    assert seen.event.after == {"file": "csv", **narrowed}


@pytest.mark.any_engine
def test_the_chain_is_for_who_audits_the_whole_organisation(told):
    dan, bob, root = (signed_in(one) for one in (told.dan, told.bob, told.root))
    with no_event():
        assert dan.post("/audit/export/", {"what": "chain"}).status_code == 403
        assert bob.post("/audit/export/", {"what": "csv"}).status_code == 403
        assert root.post("/audit/export/", {"what": "csv", "from": "never"}).status_code == 302


@pytest.mark.any_engine
def test_an_export_leaves_nothing_in_the_trail_of_a_project_that_its_reader_does_not_see(told):
    dan = signed_in(told.dan)
    with one_event("audit.exported") as seen:
        answer = dan.post("/audit/export/", {"what": "csv", "project": str(told.search.pk)})
        assert len(b"".join(answer.streaming_content).splitlines()) == 1
    assert seen.event.project_id == told.support.pk


def test_the_verifier_hashes_as_the_application_does():
    event = {
        "sequence": 1,
        "after": {"ü": ["\u2028", 2**70, None, True]},
        "origin": {"agent": "x"},
        "prev_hash": "0",
    }
    assert chain.event_hash({**event, "hash": "left out"}) == digest(event)


@pytest.mark.parametrize("value", [None, {}, {"agent": "another"}])
def test_where_an_event_came_from_cannot_be_taken_away_or_altered(value):
    [event] = write(actor=COMMAND.from_request(ip="", request_id="", agent="a browser"))
    exported = [json.dumps(as_exported(event)), ""]
    whole = as_exported(event)
    if value is None:
        del whole["origin"]
    else:
        whole["origin"] = value
    exported = [json.dumps(whole), json.dumps({"checkpoint": {"sequence": 1, "hash": event.hash}})]
    assert "altered" in " ".join(chain.verify_export(exported).problems)


@pytest.mark.parametrize(
    "line", ['{"sequence": NaN}', "[" * 100_000, '{"a": "\\ud800"}', '{"checkpoint": 7}', "\x00"]
)
def test_a_file_made_to_break_the_verifier_is_told_and_not_crashed_on(line):
    assert chain.verify_export([line]).problems
