"""Master keys are rotated while all goes on: everything is sealed anew, resumably, and the old key is then needed no longer."""

from __future__ import annotations

import json
import signal
import sys
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.apps import apps
from django.core.management import CommandError, call_command
from django.utils import timezone

from llmops.access import services
from llmops.access.selectors import master_key_rows
from llmops.base.crypto import MasterKeys, new_master_key
from llmops.base.master_keys import verify_master_keys
from llmops.base.models import MasterKeyVerifier, Resealing
from llmops.base.sealed import sealed_columns, values_by_key
from llmops.core.errors import ConfigurationRefused, Conflict
from llmops.providers import services as providers
from llmops.providers.models import Credential
from llmops.providers.selectors import reveal, sealing_identity
from llmops.serving.selectors import load_snapshot
from tests import configuring, launcher
from tests.cast import no_event, one_event, signed_in
from tests.configuring import OPERATOR
from tests.installation import ROOT, Installation

pytestmark = pytest.mark.django_db

FIRST, SECOND = new_master_key("k1"), new_master_key("k2")
SECRET = "sk-proj-PLANTED7f3a9c2e5b8d1064ZQ"


@pytest.fixture
def sealed(settings) -> list[Credential]:
    """Three keys that are sealed under the first master key; the second one is before it by now."""
    settings.MASTER_KEYS = FIRST
    verify_master_keys()
    made = [
        configuring.credential(name=f"n{number}", secret=f"{SECRET}{number}", activate=True)
        for number in range(3)
    ]
    settings.MASTER_KEYS = f"{SECOND},{FIRST}"
    verify_master_keys()
    return made


def secrets() -> list[str]:
    return sorted(reveal(one, to=one.provider.base_url) for one in Credential.objects.exclude(sealed=""))


def test_every_sealed_column_is_known():
    """Whoever adds a column for sealed values adds it to ``settings.SEALED``, or a rotation would leave it behind."""
    known = {(column.model.lower(), column.field) for column in sealed_columns()}
    found = {
        (model._meta.label_lower, field.name)
        for model in apps.get_models()
        for field in model._meta.fields
        if field.name.startswith("sealed") and field.get_internal_type() == "TextField"
    }
    # A verifier proves its own key, and goes with it.
    assert known == found - {("base.masterkeyverifier", "sealed")}


def test_everything_is_sealed_anew_and_the_old_key_may_go(sealed, settings):
    assert values_by_key() == {"k1": 3}
    with one_event("master_key.resealing_started") as seen:
        run = services.start_resealing(OPERATOR)
    assert (run.total, seen.event.before) == (3, {"k1": 3})
    with no_event(), pytest.raises(Conflict, match="3 stored values"):
        services.retire_master_key(OPERATOR, key_id="k1")
    with one_event("master_key.resealing_ended"):
        run = services.reseal(OPERATOR, run_id=run.pk)
    assert (run.state, run.done, values_by_key()) == ("done", 3, {"k2": 3})
    with one_event("master_key.retired"):
        services.retire_master_key(OPERATOR, key_id="k1")
    settings.MASTER_KEYS = SECOND
    verify_master_keys()
    assert secrets() == [f"{SECRET}{number}" for number in range(3)]
    assert len(load_snapshot().live.credentials["sim"]) == 3
    assert [(row.key_id, row.standing, row.values) for row in master_key_rows()] == [
        ("k2", "seals now", 3),
        ("k1", "retired", 0),
    ]


def test_a_lost_key_is_given_up_alone_where_it_is_lost_and_opens_again_if_found(sealed, settings):
    with no_event(), pytest.raises(Conflict, match="'k1' is not lost"):
        services.retire_master_key(OPERATOR, key_id="k1", lost=True)
    settings.MASTER_KEYS = SECOND
    with pytest.raises(ConfigurationRefused, match="'k1'"):
        verify_master_keys()
    with one_event("master_key.retired") as seen:
        services.retire_master_key(OPERATOR, key_id="k1", lost=True, reason="The disk is gone")
    assert seen.event.after == {"retired": True, "lost_values": 3}
    verify_master_keys()
    assert not load_snapshot().live.credentials.get("sim")
    providers.replace_secret(OPERATOR, credential=sealed[0], secret=f"{SECRET}new")
    assert len(load_snapshot().live.credentials["sim"]) == 1
    run = services.reseal(OPERATOR, run_id=services.start_resealing(OPERATOR).pk)
    assert (run.state, values_by_key()) == ("failed", {"k1": 2, "k2": 1})
    settings.MASTER_KEYS = f"{SECOND},{FIRST}"
    verify_master_keys()
    assert secrets() == [f"{SECRET}1", f"{SECRET}2", f"{SECRET}new"]


def test_a_process_that_still_seals_under_a_retired_key_may_not(sealed, settings):
    services.reseal(OPERATOR, run_id=services.start_resealing(OPERATOR).pk)
    services.retire_master_key(OPERATOR, key_id="k1")
    settings.MASTER_KEYS = f"{FIRST},{SECOND}"
    with pytest.raises(ConfigurationRefused, match="'k1' is retired"):
        configuring.credential(name="late", secret=SECRET)
    with pytest.raises(ConfigurationRefused, match="'k1' is retired"):
        verify_master_keys()


def test_the_key_that_seals_and_one_that_is_not_there_are_not_retired(sealed):
    for key_id, says in (("k2", "seals now"), ("k9", "no master key"), ("k1", "3 stored values")):
        with no_event(), pytest.raises(Conflict, match=says):
            services.retire_master_key(OPERATOR, key_id=key_id)


def test_a_missing_key_is_named_before_anything_begins(sealed, settings):
    settings.MASTER_KEYS = SECOND
    with no_event(), pytest.raises(Conflict, match="'k1' is needed to read 3 stored values"):
        services.start_resealing(OPERATOR)
    assert [row.standing for row in master_key_rows()] == ["seals now", "missing here"]


def test_a_value_that_does_not_open_is_left_named_and_the_rest_is_done(sealed):
    other = MasterKeys.parse(new_master_key("k1"))
    Credential.objects.filter(pk=sealed[1].pk).update(
        sealed=other.seal(SECRET, identity=sealing_identity(sealed[1].pk))
    )
    run = services.reseal(OPERATOR, run_id=services.start_resealing(OPERATOR).pk)
    assert (run.state, run.done) == ("failed", 2)
    assert "'k1' does not open" in run.message
    assert str(sealed[1].pk) in run.message
    assert values_by_key() == {"k1": 1, "k2": 2}
    with pytest.raises(Conflict):
        services.retire_master_key(OPERATOR, key_id="k1")
    # Put right, it is begun again.
    providers.replace_secret(OPERATOR, credential=sealed[1], secret=SECRET)
    run = services.reseal(OPERATOR, run_id=services.start_resealing(OPERATOR).pk)
    assert (run.state, run.total) == ("done", 0)


def test_what_changes_meanwhile_is_not_written_over(sealed):
    run = services.start_resealing(OPERATOR)
    changed = iter(
        [
            lambda: providers.replace_secret(OPERATOR, credential=sealed[2], secret=SECRET + "new"),
            lambda: None,
        ]
    )

    def meanwhile() -> None:
        next(changed, lambda: None)()

    assert services.reseal(OPERATOR, run_id=run.pk, after_each=meanwhile).state == "done"
    assert SECRET + "new" in secrets()


def test_one_run_at_a_time_and_one_whose_worker_died_is_handed_out_again(sealed, monkeypatch):
    sent: list[Any] = []
    monkeypatch.setattr("llmops.access.services.master_keys.send", lambda *what: sent.append(what))
    run = services.start_resealing(OPERATOR)
    with no_event(), pytest.raises(Conflict, match="already"):
        services.start_resealing(OPERATOR)
    assert services.resume_resealings() == 0
    Resealing.objects.update(heartbeat_at=timezone.now() - timedelta(minutes=2))
    assert services.resume_resealings() == 1
    assert sent == [("access.reseal", str(run.pk))] * 2


def test_a_worker_with_other_keys_says_so(sealed, settings):
    run = services.start_resealing(OPERATOR)
    settings.MASTER_KEYS = f"{FIRST},{SECOND}"
    with pytest.raises(ConfigurationRefused, match="the run is for 'k2'"):
        services.reseal(OPERATOR, run_id=run.pk)


def test_a_data_plane_without_the_new_key_goes_on_with_what_it_has_opened(sealed, settings):
    settings.MASTER_KEYS = FIRST
    before = load_snapshot()
    settings.MASTER_KEYS = f"{SECOND},{FIRST}"
    services.reseal(OPERATOR, run_id=services.start_resealing(OPERATOR).pk)
    providers.replace_secret(OPERATOR, credential=sealed[2], secret=SECRET + "new")
    settings.MASTER_KEYS = FIRST
    after = load_snapshot(before)
    assert sorted(one.secret for one in after.live.credentials["sim"]) == [f"{SECRET}0", f"{SECRET}1"], (
        "one that was replaced is not served as it was"
    )
    assert len(after.unreadable) == 3
    assert "'k2' is needed" in next(iter(after.unreadable.values()))


def test_the_page_shows_it(sealed, cast):
    alice = signed_in(cast.alice)
    page = alice.get("/admin/base/masterkeyverifier/").content.decode()
    assert "3 of 3 stored values are sealed under an earlier key than k2" in page
    with one_event("master_key.resealing_started"):
        assert alice.post("/admin/base/masterkeyverifier/reseal/", {}).status_code == 302
    page = alice.get("/admin/base/masterkeyverifier/").content.decode()
    assert '<progress id="sealed-anew"' in page
    services.reseal(OPERATOR, run_id=Resealing.objects.get().pk)
    page = alice.get("/admin/base/masterkeyverifier/").content.decode()
    assert "All 3 stored values are sealed under k2" in page
    assert SECRET not in page
    old = MasterKeyVerifier.objects.get(key_id="k1")
    with one_event("master_key.retired"):
        assert (
            alice.post(f"/admin/base/masterkeyverifier/{old.pk}/retire/", {"reason": ""}).status_code == 302
        )


def test_the_command_does_it(sealed):
    def run(*words: str) -> str:
        out = StringIO()
        call_command("masterkey", *words, stdout=out)
        return out.getvalue()

    assert "k1: opens; 3 values" in run("status")
    with pytest.raises(CommandError, match="Seal everything anew"):
        run("retire", "k1")
    assert "3 values were sealed anew" in run("reseal")
    assert "take it out" in run("retire", "k1", "--reason", "yearly")
    assert "k1: retired, still in the settings; 0 values" in run("status")
    with pytest.raises(CommandError, match="name the key"):
        run("retire")


# Killed -----------------------------------------------------------------------------------------------------------------

_KILLED = """
import os, signal
from llmops.access import services
from llmops.core.actors import job_actor
from llmops.base.models import Resealing
run = services.start_resealing(job_actor("test"), background=False)
seen = []
def die():
    seen.append(1)
    if len(seen) == 40:
        os.kill(os.getpid(), signal.SIGKILL)
services.reseal(job_actor("test"), run_id=run.pk, after_each=die)
"""
_FILL = """
from llmops.base.master_keys import verify_master_keys
verify_master_keys()
from tests.configuring import credential, provider
where = provider()
for number in range(120):
    credential(where, name=f"n{number}", secret=f"sk-proj-PLANTED-{number:04d}")
"""
_READ = """
import json
from llmops.base.sealed import values_by_key
from llmops.providers.models import Credential
from llmops.providers.selectors import reveal
print(json.dumps([values_by_key(), sorted(reveal(one, to=one.provider.base_url) for one in Credential.objects.all())]))
"""


@pytest.mark.timeout(600)
def test_a_run_that_is_killed_goes_on_where_it_was(installation: Installation) -> None:
    expected = [f"sk-proj-PLANTED-{number:04d}" for number in range(120)]
    env = installation.env
    env["CONSOLE_MASTER_KEYS"] = FIRST
    installation.manage("shell", "-v", "0", "-c", _FILL, env={"PYTHONPATH": str(ROOT)})
    env["CONSOLE_MASTER_KEYS"] = f"{SECOND},{FIRST}"
    killed = launcher.run([sys.executable, "manage.py", "shell", "-v", "0", "-c", _KILLED], env=env)
    assert killed.returncode == -signal.SIGKILL, killed.stderr

    def read() -> Any:
        return json.loads(installation.manage("shell", "-v", "0", "-c", _READ).stdout)

    assert read() == [{"k1": 80, "k2": 40}, expected], "both open meanwhile"
    done = installation.manage("masterkey", "reseal")
    assert "80 values were sealed anew" in done.stdout
    installation.manage(
        "shell",
        "-v",
        "0",
        "-c",
        "from llmops.base.master_keys import verify_master_keys; verify_master_keys()",
    )
    installation.manage("masterkey", "retire", "k1")
    env["CONSOLE_MASTER_KEYS"] = SECOND
    assert read() == [{"k2": 120}, expected]
