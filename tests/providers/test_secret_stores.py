"""References into secret stores: what can be read, what never, and that no refusal repeats a secret."""

from __future__ import annotations

import os
import threading

import pytest

from llmops.core.errors import ConsoleError, InvalidRequest
from llmops.providers import secret_stores
from llmops.providers.rules import CREDENTIAL_SOURCES
from llmops.providers.secret_stores import SecretUnavailable, check_reference, read_secret

SECRET = "sk-planted-4f9a1c0b7e"


@pytest.fixture
def secrets_dir(tmp_path, settings):
    directory = tmp_path / "secrets"
    directory.mkdir()
    settings.SECRET_FILE_DIRS = [str(directory)]
    return directory


@pytest.mark.parametrize("source", secret_stores.STORES)
def test_every_store_checks_before_it_reads(source):
    with pytest.raises(InvalidRequest):
        read_secret(source, "")
    with pytest.raises(InvalidRequest):
        check_reference(source, "\0")


def test_every_source_of_the_vocabulary_is_kept_here_or_readable():
    assert {source for source, _ in CREDENTIAL_SOURCES} == {"sealed", *secret_stores.STORES}
    with pytest.raises(InvalidRequest, match="not a place for secrets") as refused:
        check_reference("keychain", "x")
    assert "vault" in refused.value.message


def test_a_variable_is_read(monkeypatch):
    monkeypatch.setenv("SOME_PROVIDER_KEY", f"  {SECRET}\n")
    assert read_secret("env", "SOME_PROVIDER_KEY") == SECRET


def test_a_missing_variable_is_named():
    with pytest.raises(SecretUnavailable, match="NOT_SET_ANYWHERE"):
        read_secret("env", "NOT_SET_ANYWHERE")


@pytest.mark.parametrize(
    "name",
    ["CONSOLE_MASTER_KEYS", "CONSOLE_SECRET_KEY", "DATABASE_URL", "REDIS_URL", "console_master_keys", "PGPASSWORD",
     "CELERY_BROKER_URL", "DJANGO_SETTINGS_MODULE"],
)  # fmt: skip
def test_the_consoles_own_secrets_cannot_be_sent_to_a_provider(name, monkeypatch):
    monkeypatch.setenv(name, SECRET)
    with pytest.raises(InvalidRequest) as refused:
        read_secret("env", name)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("name", ["", "A B", "A=B", "1A", "A-B", "$A", "A" * 300, "Ä"])
def test_names_that_are_no_variables(name):
    with pytest.raises(InvalidRequest):
        check_reference("env", name)


def test_a_file_is_read(secrets_dir):
    (secrets_dir / "key").write_text(SECRET + "\n")
    assert read_secret("file", str(secrets_dir / "key")) == SECRET


def test_a_mount_that_links_within_itself_is_read(secrets_dir):
    (secrets_dir / "..data").mkdir()
    (secrets_dir / "..data" / "key").write_text(SECRET)
    (secrets_dir / "key").symlink_to("..data/key")
    assert read_secret("file", str(secrets_dir / "key")) == SECRET


def test_files_outside_are_refused_however_they_are_named(secrets_dir, tmp_path):
    outside = tmp_path / "outside"
    outside.write_text(SECRET)
    (secrets_dir / "link").symlink_to(outside)
    (secrets_dir / "kubernetes.io").mkdir()
    (secrets_dir / "kubernetes.io" / "token").write_text(SECRET)
    for path in (
        str(outside),
        str(secrets_dir / "link"),
        f"{secrets_dir}/../outside",
        "key",
        "~/key",
        "/etc/passwd",
        "/proc/self/environ",
        str(secrets_dir / "kubernetes.io" / "token"),
        str(secrets_dir) + "-beside/key",
    ):
        with pytest.raises(InvalidRequest) as refused:
            read_secret("file", path)
        assert SECRET not in str(refused.value)


def test_what_is_not_a_key_is_refused_without_being_repeated(secrets_dir):
    cases = {
        "two-lines": f"{SECRET}\nX-Injected: 1\n".encode(),
        "spaces": f"{SECRET} and more".encode(),
        "empty": b"  \n",
        "binary": b"\xff\xfe" + SECRET.encode(),
        "control": f"{SECRET}\x00".encode(),
        "large": b"k" * 70_000,
        "long": b"k" * 9_000,
        "umlaut": f"{SECRET}ä".encode(),
    }
    for name, content in cases.items():
        (secrets_dir / name).write_bytes(content)
        with pytest.raises(SecretUnavailable) as refused:
            read_secret("file", str(secrets_dir / name))
        assert SECRET not in str(refused.value), name


def test_a_missing_file_and_a_directory_are_named(secrets_dir):
    with pytest.raises(SecretUnavailable, match="No such file"):
        read_secret("file", str(secrets_dir / "absent"))
    (secrets_dir / "folder").mkdir()
    with pytest.raises(SecretUnavailable, match="folder"):
        read_secret("file", str(secrets_dir / "folder"))


def test_a_pipe_does_not_hang_the_reader(secrets_dir):
    os.mkfifo(secrets_dir / "pipe")
    found: list[BaseException] = []

    def read() -> None:
        try:
            read_secret("file", str(secrets_dir / "pipe"))
        except ConsoleError as refused:
            found.append(refused)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(timeout=20)
    assert not reader.is_alive()
    assert isinstance(found[0], SecretUnavailable)
