"""Secrets at rest: only the right key and the right row open them, and refusals name the key id and nothing else."""

from __future__ import annotations

import base64
import os

import pytest

from llmops.base import master_keys as module
from llmops.base.crypto import MasterKeys, new_master_key, split_sealed
from llmops.base.models import MasterKeyVerifier
from llmops.core.errors import ConfigurationRefused

SECRET = "sk-proj-a-planted-secret"


def keys(*ids):
    return MasterKeys({key_id: os.urandom(32) for key_id in ids})


def test_what_is_sealed_opens_again():
    ring = keys("k1")
    for text in ("", SECRET, "ü" * 1000, "\0"):
        assert ring.open(ring.seal(text, identity="row:1"), identity="row:1") == text


def test_sealing_twice_gives_different_texts_without_the_secret():
    ring = keys("k1")
    texts = {ring.seal(SECRET, identity="row:1") for _ in range(50)}
    assert len(texts) == 50
    assert all(SECRET not in text and text.startswith("v1.k1.") for text in texts)


def test_a_sealed_text_moved_to_another_row_does_not_open():
    ring = keys("k1")
    sealed = ring.seal(SECRET, identity="providers.credential:1")
    with pytest.raises(ConfigurationRefused, match="'k1' does not open"):
        ring.open(sealed, identity="providers.credential:2")


def test_a_wrong_key_under_the_right_id_is_named():
    sealed = keys("k1").seal(SECRET, identity="row:1")
    with pytest.raises(ConfigurationRefused, match="'k1' does not open") as refusal:
        keys("k1").open(sealed, identity="row:1")
    assert SECRET not in str(refusal.value)


def test_a_missing_key_is_named_with_those_present():
    sealed = keys("k1").seal(SECRET, identity="row:1")
    with pytest.raises(ConfigurationRefused, match=r"'k1' is needed .*present: k2, k3"):
        keys("k2", "k3").open(sealed, identity="row:1")


def test_an_older_key_still_opens_while_the_first_seals():
    old = os.urandom(32)
    sealed = MasterKeys({"old": old}).seal(SECRET, identity="row:1")
    ring = MasterKeys({"new": os.urandom(32), "old": old})
    assert ring.open(sealed, identity="row:1") == SECRET
    assert split_sealed(ring.seal(SECRET, identity="row:1"))[0] == "new"


@pytest.mark.parametrize("position", range(0, 60, 7))
def test_any_flipped_bit_is_found(position):
    ring = keys("k1")
    sealed = ring.seal(SECRET, identity="row:1")
    key_id, body = split_sealed(sealed)
    damaged = bytearray(body)
    damaged[position % len(damaged)] ^= 1
    with pytest.raises(ConfigurationRefused):
        ring.open(f"v1.{key_id}.{base64.urlsafe_b64encode(bytes(damaged)).decode()}", identity="row:1")


@pytest.mark.parametrize(
    "text", ["", "plain", "v1.k1", "v2.k1.AAAA", "v1.k1.###", "v1.k1.AAAA.BBBB", "v1.k1.", "v1.k1.AAAA"]
)
def test_what_was_never_sealed_is_refused(text):
    with pytest.raises(ConfigurationRefused):
        keys("k1").open(text, identity="row:1")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "No master key"),
        (" , ,", "No master key"),
        ("justakey", "item 1: expected id:base64"),
        (":" + base64.b64encode(b"x" * 32).decode(), "item 1"),
        ("a.b:" + base64.b64encode(b"x" * 32).decode(), "without dots"),
        ("k:???", "'k' is not valid base64"),
        ("k:" + base64.b64encode(b"x" * 31).decode(), "'k' has 31 bytes"),
        (",".join(["k:" + base64.b64encode(b"x" * 32).decode()] * 2), "'k' twice"),
    ],
)
def test_bad_configuration_is_a_sentence_without_key_material(text, said):
    with pytest.raises(ConfigurationRefused, match=said) as refusal:
        MasterKeys.parse(text)
    assert base64.b64encode(b"x" * 31).decode() not in str(refusal.value)


def test_a_new_key_can_be_configured_and_is_never_printed():
    entry = new_master_key("2027")
    ring = MasterKeys.parse(entry)
    assert ring.active_id == "2027"
    assert entry.split(":")[1] not in repr(ring) + str(ring) + repr(vars(ring))


@pytest.mark.django_db
def test_the_process_with_the_wrong_keys_does_not_start(settings):
    first, second = new_master_key("k1"), new_master_key("k2")
    settings.MASTER_KEYS = first
    module.verify_master_keys()
    settings.MASTER_KEYS = f"{second},{first}"
    module.verify_master_keys()
    assert module.required_key_ids() == {"k1", "k2"}
    settings.MASTER_KEYS = second
    with pytest.raises(
        ConfigurationRefused, match=r"need the master key 'k1' .* which is not there .only k2."
    ):
        module.verify_master_keys()
    settings.MASTER_KEYS = f"{second},{new_master_key('k1')}"
    with pytest.raises(ConfigurationRefused, match=r"'k1' .* is another key"):
        module.verify_master_keys()
    MasterKeyVerifier.objects.filter(key_id="k1").update(retired_at="2026-01-01T00:00:00Z")
    settings.MASTER_KEYS = second
    module.verify_master_keys()


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("in_file", "given", "said"),
    [
        (None, "", "and that file is missing"),
        ("\n", "", "and that file is empty"),
        ("CONSOLE_SECRET_KEY=x\n", "", "and that line is missing"),
        ("CONSOLE_MASTER_KEYS=\n", "", "and that line is empty"),
        ("CONSOLE_MASTER_KEYS=k1:AAAA\n", "k1:AAAA", "cannot be read: Master key 'k1' has 3 bytes"),
    ],
)
def test_keys_that_are_lost_are_named_with_the_file_to_put_back(settings, tmp_path, in_file, given, said):
    settings.MASTER_KEYS_FILE = kept = tmp_path / "keys.env"
    if in_file is not None:
        kept.write_text(in_file)
    settings.MASTER_KEYS = new_master_key("k1")
    module.verify_master_keys()
    settings.MASTER_KEYS = given
    with pytest.raises(ConfigurationRefused, match=said) as refusal:
        module.master_keys()
    assert f"need the master key 'k1' of CONSOLE_MASTER_KEYS in {kept}" in refusal.value.message
    assert "Put the copy of keys.env back" in refusal.value.message
    assert "masterkey new" not in refusal.value.message


@pytest.mark.django_db
def test_without_stored_secrets_a_missing_key_may_be_a_new_one(settings):
    settings.MASTER_KEYS = ""
    with pytest.raises(ConfigurationRefused, match=r"\./dev manage masterkey new"):
        module.master_keys()
    settings.MASTER_KEYS, settings.MASTER_KEYS_FILE = new_master_key("k1"), None
    module.verify_master_keys()
    settings.MASTER_KEYS = ""
    with pytest.raises(
        ConfigurationRefused, match=r"'k1' of CONSOLE_MASTER_KEYS, which is not set. Set it to what"
    ):
        module.master_keys()
