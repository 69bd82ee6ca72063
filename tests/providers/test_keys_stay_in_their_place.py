"""A key goes only where it was given for, whoever changes where its provider is: by form, API, file, import or roll-back."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from console.declarative import apply_text
from llmops.core.errors import InvalidRequest
from llmops.providers import services
from llmops.providers.models import Credential, Provider
from llmops.providers.rules import origin_of
from llmops.providers.secret_stores import SecretUnavailable
from llmops.serving.selectors import load_snapshot, pending
from llmops.serving.services import publish
from tests import configuring
from tests.configuring import OPERATOR, secret_of
from tests.providers.answering import Answering

ELSEWHERE = "http://127.0.0.2:9/v1"

pytestmark = pytest.mark.django_db


def served() -> dict[str, list[str]]:
    """Names of the keys that a data plane holds, by provider."""
    return {slug: [key.name for key in keys] for slug, keys in load_snapshot().live.credentials.items()}


def move(provider: Provider, to: str = ELSEWHERE) -> None:
    services.update_provider(OPERATOR, provider=provider, changes={"base_url": to})


def test_a_key_is_not_tried_where_it_was_not_given_for(answering: Callable[[], Answering]) -> None:
    provider = configuring.provider()
    key = configuring.credential(provider)
    there = answering()
    move(provider, there.url)
    probed = services.probe_credential(OPERATOR, credential=key)
    assert probed.state == "staged" and not there.asked
    assert "given for http://127.0.0.1:9" in probed.last_probe_result
    with pytest.raises(SecretUnavailable, match="is not sent to"):
        secret_of(key)


def test_a_data_plane_holds_no_key_for_a_place_that_it_was_not_given_for() -> None:
    provider, _, _ = configuring.everything()
    publish(OPERATOR, reason="as it was")
    assert served() == {"sim": ["primary"]}
    # What is served counts, not the draft: calls go on until the new place is published.
    move(provider)
    assert served() == {"sim": ["primary"]}
    assert [problem.code for problem in pending().problems if problem.kind == "provider"] == ["no_key"]
    publish(OPERATOR, reason="moved")
    assert served() == {}
    (told,) = load_snapshot().problems
    assert "given for http://127.0.0.1:9 and is not sent to http://127.0.0.2:9" in told
    # A process that opened it before lets go of it as well.
    assert load_snapshot(load_snapshot()).live.credentials == {}


def test_with_a_key_for_each_place_no_revision_lacks_one() -> None:
    provider, _, _ = configuring.everything()
    publish(OPERATOR, reason="as it was")
    move(provider)
    configuring.credential(provider, name="there", activate=True)
    assert served() == {"sim": ["primary"]}
    assert [problem for problem in pending().problems if problem.code == "no_key"] == []
    publish(OPERATOR, reason="moved")
    assert served() == {"sim": ["there"]}


def test_a_key_given_anew_goes_to_the_new_place() -> None:
    provider, _, _ = configuring.everything()
    move(provider)
    key = Credential.objects.get()
    services.replace_secret(OPERATOR, credential=key, secret="sk-test-anew-0123456789abcdef")
    publish(OPERATOR, reason="moved")
    assert served() == {"sim": ["primary"]} and secret_of(key).startswith("sk-test-anew")


def test_a_rotation_gives_the_new_key_for_the_new_place(answering: Callable[[], Answering]) -> None:
    provider, _, _ = configuring.everything()
    there = answering()
    move(provider, there.url)
    rotation = services.begin_rotation(
        OPERATOR, credential=Credential.objects.get(), secret="sk-test-anew-0123456789abcdef"
    )
    assert rotation.new.origin == origin_of(there.url)
    assert {headers["Authorization"] for _, _, headers, _ in there.asked} == {
        "Bearer sk-test-anew-0123456789abcdef"
    }


FILE = """
version: 1
providers:
  - slug: sim
    kind: simulator
    base_url: {url}
    allow_private_network: true
    credentials:
      - {{name: primary, secret: "{secret}"}}
"""


def test_a_file_moves_a_key_when_it_gives_it_anew() -> None:
    plain = "plain:sk-test-0123456789abcdef0123456789"
    apply_text(OPERATOR, FILE.format(url="http://127.0.0.1:9/v1", secret=plain))
    apply_text(OPERATOR, FILE.format(url=ELSEWHERE, secret=plain))
    assert Credential.objects.get().origin == "http://127.0.0.2:9"
    assert apply_text(OPERATOR, FILE.format(url=ELSEWHERE, secret=plain)).nothing_to_do


def test_a_file_with_a_placeholder_moves_no_key() -> None:
    plain = "plain:sk-test-0123456789abcdef0123456789"
    apply_text(OPERATOR, FILE.format(url="http://127.0.0.1:9/v1", secret=plain))
    done = apply_text(OPERATOR, FILE.format(url=ELSEWHERE, secret="env:SIM_PRIMARY"))
    assert Credential.objects.get().origin == "http://127.0.0.1:9"
    assert any("holds no key" in note for note in done.plan.notes)


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://api.openai.com/v1", "https://api.openai.com"),
        ("https://API.openai.com:443/v1/", "https://api.openai.com"),
        ("https://api.openai.com./v1", "https://api.openai.com"),
        ("https://api.openai.com:8443/v1", "https://api.openai.com:8443"),
        ("http://[::1]:8001/v1", "http://[::1]:8001"),
        ("http://api.openai.com/v1", "http://api.openai.com"),
        ("https://api.openai.com@evil.example/v1", "https://evil.example"),
        ("https://api.openai.com.evil.example/v1", "https://api.openai.com.evil.example"),
        ("ftp://api.openai.com/v1", ""),
        ("https://api.openai.com:port/v1", ""),
        ("", ""),
    ],
)
def test_where_a_url_leads(url: str, origin: str) -> None:
    assert origin_of(url) == origin


@given(st.text(max_size=40))
def test_any_text_has_an_origin_or_none(url: str) -> None:
    found = origin_of(url)
    assert found == "" or origin_of(found) == found


@pytest.mark.any_engine
def test_over_plain_http_no_proxy_comes_between_a_key_and_its_place() -> None:
    provider = configuring.provider()
    proxied = {"proxy_url": "http://elsewhere.example:3128"}
    services.update_provider(OPERATOR, provider=provider, changes=proxied)
    services.update_provider(OPERATOR, provider=provider, changes={"proxy_url": ""})
    key = configuring.credential(provider)
    with pytest.raises(InvalidRequest, match="would read the keys") as refused:
        services.update_provider(OPERATOR, provider=provider, changes=proxied)
    assert refused.value.param == "proxy_url"
    # Over TLS it is asked for a tunnel, and the key stays behind in any case: it was given for another place.
    services.update_provider(
        OPERATOR, provider=provider, changes={**proxied, "base_url": "https://10.0.0.9/v1"}
    )
    with pytest.raises(SecretUnavailable):
        secret_of(key)
    services.revoke_credential(OPERATOR, credential=key)
    services.update_provider(OPERATOR, provider=provider, changes={"base_url": "http://10.0.0.9/v1"})
