"""The Audit pages: having the trail verified."""

from __future__ import annotations

import io
import json
from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command
from django.db import IntegrityError, transaction

from llmops.audit import verification
from llmops.audit.checking import check_database
from llmops.audit.models import Event, Verification
from llmops.core.actors import job_actor
from tests.audit.trail import without_triggers, write
from tests.cast import COMMAND, no_event, one_event, signed_in

pytestmark = pytest.mark.django_db
JOB = job_actor("audit.verify")


def test_the_button_has_the_trail_verified_and_the_page_says_how_it_went(cast):
    write(12)
    client = signed_in(cast.root)
    with one_event("audit.verification_started"):
        assert client.post("/audit/verify/").status_code == 302
    run = Verification.objects.get()
    assert run.total == Event.objects.first().pk
    steps = []
    write(5)
    with one_event("audit.verified") as seen:
        verification.verify(JOB, run_id=run.pk, step=4, after_each=lambda one: steps.append(one.sequence))
    assert steps == list(range(4, run.total, 4))
    assert seen.event.after == {"intact": True, "events": run.total, "digest": run.head_hash}
    page = client.get("/audit/verify/").content.decode()
    assert f"{run.total} events verified" in page and run.head_hash in page
    live = client.get("/audit/verify/live/?marker=old").json()
    assert "Intact" in live["said"]
    assert client.get(f"/audit/verify/live/?marker={live['marker']}").status_code == 204


def test_one_verification_at_a_time(cast):
    client = signed_in(cast.root)
    client.post("/audit/verify/")
    with no_event():
        page = client.post("/audit/verify/", follow=True).content.decode()
    assert "being verified already" in page


def test_a_run_is_taken_over_where_the_dead_worker_left_it(cast, monkeypatch):
    write(9)
    run = verification.start_verification(COMMAND, background=False)

    def dies(one):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verification.verify(JOB, run_id=run.pk, step=3, after_each=dies)
    run.refresh_from_db()
    assert (run.state, run.sequence) == (Verification.RUNNING, 3)
    sent = []
    monkeypatch.setattr(verification, "send", lambda *words: sent.append(words))
    assert verification.resume_verifications() == 0
    Verification.objects.update(heartbeat_at=run.heartbeat_at - timedelta(minutes=5))
    assert verification.resume_verifications() == 1
    assert sent == [("audit.verify", str(run.pk))]
    assert verification.verify(JOB, run_id=run.pk, step=3).state == Verification.INTACT
    with no_event():
        assert verification.verify(JOB, run_id=run.pk).state == Verification.INTACT


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("UPDATE audit_event SET actor_name = 'mallory' WHERE sequence = 2", "event 2 was altered"),
        ("DELETE FROM audit_event WHERE sequence = 4", "event 4 is missing"),
        ("DELETE FROM audit_event WHERE sequence >= 6", "event 5 is the last one"),
        ("UPDATE audit_chain_head SET sequence = 3", "set back"),
    ],
)
def test_a_trail_changed_past_the_triggers_is_found(damage, said):
    with transaction.atomic():
        write(6)
    run = verification.start_verification(COMMAND, background=False)
    with without_triggers() as cursor:
        cursor.execute(damage)
    if "chain_head" in damage:
        # The next event could not be recorded; the finding is still told.
        with pytest.raises(IntegrityError, match="sequence"):
            verification.verify(JOB, run_id=run.pk, step=2)
        return
    found = verification.verify(JOB, run_id=run.pk, step=2)
    assert found.state == Verification.BROKEN
    assert said in " / ".join(found.problems)


def test_a_checkpoint_by_itself_is_compared_with_the_database(cast, tmp_path, capsys):
    write(4)
    out = io.StringIO()
    with no_event():
        call_command("audit", "checkpoint", stdout=out)
    kept = tmp_path / "checkpoint.json"
    kept.write_text(out.getvalue())
    write(2)
    call_command("audit", "verify", "--file", str(kept), stdout=io.StringIO())
    for changed in (
        {"sequence": 3, "hash": "0" * 64}, {"sequence": 999, "hash": "0" * 64}, {"sequence": None}, {"sequence": 10**30},
    ):  # fmt: skip
        kept.write_text(json.dumps({"checkpoint": changed}))
        with pytest.raises(CommandError, match="NOT intact"):
            call_command("audit", "verify", "--file", str(kept), stdout=io.StringIO())
    assert check_database().intact
