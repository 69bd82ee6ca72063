"""References into HashiCorp Vault and AWS Secrets Manager, over real HTTP; what they said is remembered, and never repeated."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime
from typing import Any

import pytest

from llmops.core.errors import ConsoleError, InvalidRequest
from llmops.providers import secret_stores
from llmops.providers.secret_stores import SecretUnavailable, StoreAway, check_reference, read_secret
from llmops.providers.secret_stores.remembered import AGAIN_S, FRESH_S, Memory
from llmops.providers.secret_stores.sigv4 import Identity, signed
from tests.providers.answering import answer

SECRET = "sk-planted-4f9a1c0b7e"
TOKEN = "hvs.PLANTEDTOKEN0123456789"


def holding(**fields: Any) -> bytes:
    return json.dumps({"data": {"data": fields, "metadata": {"version": 4}}}).encode()


@pytest.fixture
def vault(answering, settings):
    server = answering()
    server.script = answer(200, holding(key=SECRET))
    settings.VAULT_ADDR, settings.VAULT_TOKEN = f"http://127.0.0.1:{server.port}", TOKEN
    return server


def test_a_field_of_a_secret_in_vault_is_read(vault, settings):
    settings.VAULT_NAMESPACE = "team"
    assert read_secret("vault", "kv/data/llmops/openai#key") == SECRET
    method, path, headers, _ = vault.asked[-1]
    assert (method, path) == ("GET", "/v1/kv/data/llmops/openai")
    assert (headers["X-Vault-Token"], headers["X-Vault-Namespace"]) == (TOKEN, "team")
    assert read_secret("vault", "kv/data/llmops/openai?version=3#key") == SECRET
    assert vault.asked[-1][1].endswith("?version=3")


def test_an_engine_of_version_1_is_read(vault, settings):
    settings.VAULT_PATHS = ["secret/llmops/"]
    vault.script = answer(200, json.dumps({"data": {"key": SECRET}}).encode())
    assert read_secret("vault", "secret/llmops/openai#key") == SECRET


def test_the_token_comes_from_an_agents_file_each_time(vault, settings, tmp_path):
    sink = tmp_path / "token"
    settings.VAULT_TOKEN_FILE = str(sink)
    for token in ("hvs.first", "hvs.second"):
        sink.write_text(token + "\n")
        read_secret("vault", "kv/data/llmops/openai#key")
        assert vault.asked[-1][2]["X-Vault-Token"] == token
    sink.write_text("two words")
    with pytest.raises(SecretUnavailable, match="does not hold a token"):
        read_secret("vault", "kv/data/llmops/openai#key")
    sink.unlink()
    with pytest.raises(SecretUnavailable, match="No such file"):
        read_secret("vault", "kv/data/llmops/openai#key")


@pytest.mark.parametrize(
    "reference",
    ["", "kv#key", "kv/data/llmops/openai", "kv/data/other/openai#key", "sys/seal-status#x", "auth/token/lookup-self#id",
     "kv/data/llmops/../../auth/token/lookup-self#id", "kv/data/llmops/./x#k", "/kv/data/llmops/x#k", "kv/data/llmops/x?list=true#k",
     "kv/data/llmops/x#k\r\nX: 1", "kv/data/llmops/x%2f..#k", "kv/data/llmops/ä#k"],
)  # fmt: skip
def test_paths_that_are_not_for_provider_keys_are_refused_before_vault_is_asked(vault, reference):
    with pytest.raises(InvalidRequest) as refused:
        read_secret("vault", reference)
    assert refused.value.param == "reference"
    assert vault.asked == []


@pytest.mark.parametrize(
    ("status", "body", "kind", "says"),
    [
        (403, b'{"errors":["permission denied"]}', SecretUnavailable, "policy"),
        (404, b"{}", SecretUnavailable, "data behind the mount"),
        (503, b"{}", StoreAway, "sealed"),
        (500, b"{}", StoreAway, "500"),
        (302, b"", SecretUnavailable, "302"),
        (200, b"not json", SecretUnavailable, "no secret"),
        (200, b'{"data": []}', SecretUnavailable, "no field"),
        (200, holding(other=SECRET), SecretUnavailable, "no field 'key'"),
        (200, holding(key={"a": SECRET}), SecretUnavailable, "text"),
        (200, holding(key=SECRET + "\nX: 1"), SecretUnavailable, "one line"),
        (200, b"{" + b" " * 300_000 + b"}", SecretUnavailable, "413"),
    ],
)
def test_what_vault_says_instead_is_told_without_a_secret(vault, status, body, kind, says):
    vault.script = answer(status, body, Location="http://127.0.0.1:1/")
    with pytest.raises(kind, match=says) as refused:
        read_secret("vault", "kv/data/llmops/openai#key")
    assert SECRET not in refused.value.message
    assert TOKEN not in refused.value.message
    assert len(vault.asked) == 1, "a redirect would carry the token elsewhere"


def test_a_vault_that_is_away_or_unknown_says_so(settings, answering):
    settings.VAULT_ADDR, settings.VAULT_TOKEN = "", TOKEN
    with pytest.raises(SecretUnavailable, match="CONSOLE_VAULT_ADDR"):
        read_secret("vault", "kv/data/llmops/openai#key")
    settings.VAULT_ADDR = "http://127.0.0.1:9"
    with pytest.raises(StoreAway, match="could not be reached"):
        read_secret("vault", "kv/data/llmops/openai#key")
    settings.VAULT_ADDR = "http://vault.example.com:8200"
    with pytest.raises(SecretUnavailable, match="use https"):
        read_secret("vault", "kv/data/llmops/openai#key")
    settings.VAULT_ADDR = "http://169.254.169.254"
    with pytest.raises(SecretUnavailable, match="metadata service"):
        read_secret("vault", "kv/data/llmops/openai#key")
    settings.VAULT_TOKEN = ""
    with pytest.raises(SecretUnavailable, match="CONSOLE_VAULT_TOKEN"):
        read_secret("vault", "kv/data/llmops/openai#key")


# AWS ------------------------------------------------------------------------------------------------------------------


def test_requests_are_signed_as_aws_documents_it():
    # AWS Signature Version 4 test suite, "get-vanilla", and the example of the General Reference (IAM, ListUsers).
    who = Identity("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
    at = datetime(2015, 8, 30, 12, 36, 0, tzinfo=UTC)
    vanilla = signed(
        who, method="GET", host="example.amazonaws.com", region="us-east-1", service="service", headers={}, body=b"", at=at
    )  # fmt: skip
    assert vanilla["authorization"].endswith(
        "SignedHeaders=host;x-amz-date, Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"
    )
    users = signed(
        who, method="GET", host="iam.amazonaws.com", region="us-east-1", service="iam", body=b"", at=at,
        headers={"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"},
        query="Action=ListUsers&Version=2010-05-08",
    )  # fmt: skip
    assert users["authorization"].endswith(
        "Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
    )
    assert "wJalr" not in repr(who)


@pytest.fixture
def aws(answering, settings, monkeypatch):
    server = answering()
    server.script = answer(200, json.dumps({"SecretString": SECRET}).encode())
    settings.AWS_ENDPOINT, settings.AWS_REGION = f"http://127.0.0.1:{server.port}", "eu-central-1"
    for name in (
        "AWS_SESSION_TOKEN",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "aws-secret-planted")
    return server


def test_a_secret_in_aws_is_read(aws):
    assert read_secret("aws", "llmops/openai") == SECRET
    method, _, headers, body = aws.asked[-1]
    assert (method, json.loads(body)) == ("POST", {"SecretId": "llmops/openai"})
    sent = {name.lower(): value for name, value in headers.items()}
    assert sent["x-amz-target"] == "secretsmanager.GetSecretValue"
    at = datetime.strptime(sent["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    again = signed(
        Identity("AKIDEXAMPLE", "aws-secret-planted"), method="POST", host=sent["host"], region="eu-central-1",
        service="secretsmanager", body=body, at=at,
        headers={"content-type": sent["content-type"], "x-amz-target": sent["x-amz-target"]},
    )  # fmt: skip
    assert sent["authorization"] == again["authorization"], "what arrived is what was signed"
    aws.script = answer(200, json.dumps({"SecretString": json.dumps({"key": SECRET})}).encode())
    assert read_secret("aws", "llmops/openai#key") == SECRET
    arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:llmops/openai-AbCdEf"
    assert read_secret("aws", f"{arn}#key") == SECRET
    assert "/us-east-1/secretsmanager/" in aws.asked[-1][2]["authorization"]
    assert json.loads(aws.asked[-1][3]) == {"SecretId": arn}


def test_a_container_has_an_identity_of_its_own(aws, answering, monkeypatch, tmp_path):
    agent = answering()
    agent.script = answer(
        200, json.dumps({"AccessKeyId": "ASIA", "SecretAccessKey": "x", "Token": "session"}).encode()
    )
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://127.0.0.1:{agent.port}/v1/credentials")
    (tmp_path / "jwt").write_text("the-pods-token\n")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(tmp_path / "jwt"))
    assert read_secret("aws", "llmops/openai") == SECRET
    assert agent.asked[0][2]["Authorization"] == "the-pods-token"
    sent = {name.lower(): value for name, value in aws.asked[-1][2].items()}
    assert sent["x-amz-security-token"] == "session"
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://203.0.113.9/creds")
    with pytest.raises(SecretUnavailable, match="not one of a container's"):
        read_secret("aws", "llmops/openai")
    monkeypatch.delenv("AWS_CONTAINER_CREDENTIALS_FULL_URI")
    with pytest.raises(SecretUnavailable, match="no identity at AWS"):
        read_secret("aws", "llmops/openai")


@pytest.mark.parametrize(
    "reference", ["", "prod/db", "llmops", "llmops/a b", "llmops/x#", "arn:aws:s3:::llmops/x", "LLMOPS/x"]
)
def test_names_that_are_not_for_provider_keys_are_refused_before_aws_is_asked(aws, reference):
    with pytest.raises(InvalidRequest):
        read_secret("aws", reference)
    assert aws.asked == []


@pytest.mark.parametrize(
    ("status", "kind", "error", "says"),
    [
        (400, "ResourceNotFoundException", SecretUnavailable, "no secret"),
        (400, "AccessDeniedException", SecretUnavailable, "GetSecretValue"),
        (400, "com.amazonaws#ExpiredTokenException", SecretUnavailable, "run out"),
        (400, "ThrottlingException", StoreAway, "400"),
        (500, "InternalServiceError", StoreAway, "500"),
        (400, f"odd {SECRET}", SecretUnavailable, "400"),
    ],
)
def test_what_aws_says_instead_is_told_without_a_secret(aws, status, kind, error, says):
    aws.script = answer(status, json.dumps({"__type": kind, "message": SECRET}).encode())
    with pytest.raises(error, match=says) as refused:
        read_secret("aws", "llmops/openai")
    assert SECRET not in refused.value.message
    assert "aws-secret-planted" not in refused.value.message


def test_what_is_needed_to_ask_the_stores_cannot_be_sent_to_a_provider():
    for name in ("AWS_SECRET_ACCESS_KEY", "VAULT_TOKEN", "CONSOLE_VAULT_TOKEN"):
        with pytest.raises(InvalidRequest):
            check_reference("env", name)


# Remembering ----------------------------------------------------------------------------------------------------------


class Store:
    def __init__(self) -> None:
        self.holds: str | ConsoleError = SECRET
        self.asked = 0
        self.now = 0.0

    def read(self, source: str, reference: str) -> str:
        self.asked += 1
        if isinstance(self.holds, ConsoleError):
            raise self.holds
        return self.holds


@pytest.fixture
def store():
    return Store()


@pytest.fixture
def memory(store, monkeypatch):
    made = Memory(store.read, lambda: store.now)
    # What is due is read when a test says so.
    monkeypatch.setattr(made, "_ask_beside", lambda wake=True: None)
    return made


def value(memory: Memory, generation: str = "1", *, wait: bool = False) -> str:
    return memory.value(
        "id", source="vault", reference="kv/data/llmops/x#k", generation=generation, wait=wait
    )


def test_nobody_waits_for_a_store_but_who_starts(memory, store):
    with pytest.raises(SecretUnavailable, match="being read"):
        value(memory)
    assert store.asked == 0
    memory.refresh_due()
    assert (value(memory), memory.changes, store.asked) == (SECRET, 1, 1)
    assert Memory(store.read).value("id", source="vault", reference="r", generation="1", wait=True) == SECRET


def test_what_was_read_holds_while_the_store_is_away_and_not_when_it_says_no(memory, store):
    value(memory, wait=True)
    store.holds, store.now = StoreAway("away"), FRESH_S
    memory.refresh_due()
    assert (value(memory), memory.changes) == (SECRET, 1)
    store.now += AGAIN_S - 0.1
    memory.refresh_due()
    assert store.asked == 2, "a store that is away is left alone for a while"
    store.holds, store.now = SecretUnavailable("removed there"), store.now + 1
    memory.refresh_due()
    with pytest.raises(SecretUnavailable, match="removed there"):
        value(memory)
    assert memory.changes == 2


def test_a_key_that_changed_in_its_store_is_seen_in_time_or_when_somebody_says_so(memory, store):
    value(memory, wait=True)
    store.holds = "sk-second"
    memory.refresh_due()
    assert value(memory) == SECRET
    store.now = FRESH_S
    memory.refresh_due()
    assert value(memory) == "sk-second"
    store.holds = "sk-third"
    assert value(memory, "2") == "sk-second", "the old one serves until the new one is there"
    memory.refresh_due()
    assert value(memory, "2") == "sk-third"


def test_many_at_once_are_read_beside(store):
    gate = threading.Event()

    def slow(source: str, reference: str) -> str:
        gate.wait(10)
        return SECRET

    memory = Memory(slow)
    for number in range(20):
        with pytest.raises(SecretUnavailable):
            memory.value(str(number), source="vault", reference="r", generation="1", wait=False)
    gate.set()
    for _ in range(1000):
        if memory.changes == 20:
            break
        threading.Event().wait(0.01)
    assert memory.changes == 20
    assert SECRET not in repr(memory._entries)


def test_every_store_over_a_network_is_one():
    assert set(secret_stores.REMOTE) <= set(secret_stores.STORES)
