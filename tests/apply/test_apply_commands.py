"""``manage.py apply``, ``export`` and ``masterkey``, as a person at a terminal meets them."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from llmops.audit.models import Event
from llmops.base.crypto import MasterKeys
from llmops.core.errors import ConfigurationRefused
from llmops.providers.models import Provider
from llmops.serving.selectors import live_revision
from tests import launcher
from tests.cast import last_sequence, no_event

ROOT = Path(__file__).resolve().parents[2]
FILE = """\
version: 1
providers:
  - slug: sim
    kind: simulator
    base_url: http://127.0.0.1:9/v1
    allow_private_network: true
    credentials: [{name: primary, secret: "plain:sk-PLANTED-0123456789abcdef"}]
models:
  - {slug: small, provider: sim, model: small-1, context_window: 8000, max_output_tokens: 1000, default_max_output_tokens: 100}
routes:
  - {slug: chat, targets: [{model: small}]}
"""


def run(name: str, *arguments: str) -> str:
    out = io.StringIO()
    call_command(name, *arguments, stdout=out)
    return out.getvalue()


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "console.yaml"
    path.write_text(FILE)
    return path


@pytest.mark.django_db
def test_a_plan_first_then_the_thing_then_nothing_to_do(file):
    with no_event():
        told = run("apply", "-f", str(file), "--dry-run")
    assert "+ provider sim" in told
    assert "publish: route chat added: small (100)" in told
    assert "Nothing was changed" in told
    assert "PLANTED" not in told
    assert not Provider.objects.exists()
    told = run("apply", "-f", str(file), "--reason", "the first file")
    assert "revision 1 is live" in told
    assert "note: Model small has no price" in told
    assert live_revision().reason == "the first file"
    with no_event():
        assert "Nothing to do" in run("apply", "-f", str(file))


@pytest.mark.django_db
def test_publishing_can_be_left_out(file):
    assert "not published" in run("apply", "-f", str(file), "--no-publish")
    assert live_revision() is None
    assert "revision 1 is live" in run("apply", "-f", str(file))
    assert live_revision().reason == "applied console.yaml"


@pytest.mark.django_db
def test_a_bad_file_is_told_by_file_and_line(file):
    file.write_text(FILE.replace("targets:", "target:").replace("kind: simulator", "kind: simulater"))
    before = last_sequence()
    with pytest.raises(CommandError) as refused:
        run("apply", "-f", str(file))
    lines = str(refused.value).splitlines()
    assert lines[0].startswith(f"{file}:4: ")
    assert "did you mean 'simulator'" in lines[0]
    assert any(line.startswith(f"{file}:11: ") and "did you mean 'targets'" in line for line in lines)
    assert lines[-1] == "Nothing was applied."
    assert last_sequence() == before


@pytest.mark.django_db
@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00", b""])
def test_a_file_that_cannot_be_read_is_a_sentence(tmp_path, content):
    path = tmp_path / "x.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CommandError, match=r"x\.yaml"):
        run("apply", "-f", str(path))


@pytest.mark.django_db
def test_standard_input_is_a_file_too(file, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(FILE))
    assert "revision 1 is live" in run("apply", "-f", "-")


@pytest.mark.django_db
def test_an_export_goes_to_a_file_or_the_screen_and_applies(file, tmp_path):
    run("apply", "-f", str(file))
    target = tmp_path / "out.yaml"
    before = last_sequence()
    assert "Wrote" in run("export", "-o", str(target))
    event = Event.objects.get(sequence=before + 1)
    assert (event.action, event.actor_kind) == ("configuration.exported", "command")
    assert event.after == {"digest": hashlib.sha256(target.read_bytes()).hexdigest()}
    assert run("export") == target.read_text()
    assert last_sequence() == before + 2
    with no_event():
        assert "PLANTED" not in target.read_text()
        assert "Nothing to do" in run("apply", "-f", str(target))
    with pytest.raises(CommandError, match="cannot be written"):
        run("export", "-o", str(tmp_path / "no" / "such" / "folder"))


@pytest.mark.django_db
def test_with_the_wrong_master_key_nothing_is_sealed(file, settings):
    run("apply", "-f", str(file))
    settings.MASTER_KEYS = run("masterkey", "new", "--id", "other").strip()
    before = last_sequence()
    with pytest.raises(ConfigurationRefused, match="tests"):
        run("apply", "-f", str(file))
    assert last_sequence() == before


def test_a_new_master_key_can_be_used_at_once():
    entry = run("masterkey", "new", "--id", "k2026").strip()
    keys = MasterKeys.parse(entry)
    assert keys.active_id == "k2026"
    assert keys.open(keys.seal("x", identity="a"), identity="a") == "x"
    assert run("masterkey", "new") != run("masterkey", "new")
    for bad in ("", "a b", "a.b", "a:b", "a,b", "x" * 61):
        if bad:
            with pytest.raises(CommandError, match="--id"):
                run("masterkey", "new", "--id", bad)


def test_a_master_key_is_made_where_nothing_is_configured_yet(tmp_path):
    environment = {"PATH": os.environ["PATH"], "CONSOLE_DATA_DIR": str(tmp_path)}
    made = subprocess.run(
        [sys.executable, ROOT / "manage.py", "masterkey", "new"],
        env=environment,
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    assert MasterKeys.parse(made.stdout.strip())


def manage(*arguments, **environment) -> subprocess.CompletedProcess[str]:
    return launcher.run([sys.executable, ROOT / "manage.py", *arguments], env={**os.environ, **environment})


def test_a_refusal_is_an_exit_status_and_no_traceback(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(
        "version: 1\nproviders: [{slug: p, kind: openai, base_url: x, secret: sk-PLANTED-0123456789}]\n"
    )
    done = manage("apply", "-f", path)
    assert done.returncode == 1
    assert "bad.yaml:2: providers[0]: there is no member 'secret'" in done.stderr
    assert "Traceback" not in done.stderr
    assert "PLANTED" not in done.stderr + done.stdout


def test_a_database_without_tables_is_a_sentence(file, tmp_path):
    done = manage("apply", "-f", file, DATABASE_URL=f"sqlite:///{tmp_path}/fresh.sqlite3")
    assert done.returncode == 1
    assert "migrate" in done.stderr
    assert "Traceback" not in done.stderr
