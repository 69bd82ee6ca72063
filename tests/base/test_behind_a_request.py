"""Who stands behind a request, and from where."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.test import RequestFactory

from llmops.base.requests import NOBODY, actor_of, client_ip, trusted_networks


def request(peer="192.0.2.10", forwarded=None, user=None, **fields):
    headers = {} if forwarded is None else {"HTTP_X_FORWARDED_FOR": forwarded}
    made = RequestFactory().get("/", REMOTE_ADDR=peer, **headers)
    made.user = user
    for name, value in fields.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("trusted", "peer", "forwarded", "expected"),
    [
        ([], "192.0.2.10", "203.0.113.5", "192.0.2.10"),
        ([], "192.0.2.10", None, "192.0.2.10"),
        (["192.0.2.10"], "192.0.2.10", "203.0.113.5", "203.0.113.5"),
        (["192.0.2.0/24"], "192.0.2.10", "203.0.113.5", "203.0.113.5"),
        # What a caller wrote before the first trusted proxy added its own line counts for nothing.
        (["192.0.2.0/24"], "192.0.2.10", "6.6.6.6, 203.0.113.5", "203.0.113.5"),
        (["192.0.2.0/24"], "192.0.2.10", "6.6.6.6, 203.0.113.5, 192.0.2.11", "203.0.113.5"),
        (["192.0.2.0/24"], "192.0.2.10", "192.0.2.12, 192.0.2.11", "192.0.2.12"),
        (["192.0.2.0/24"], "192.0.2.10", "garbage", "192.0.2.10"),
        (["192.0.2.0/24"], "192.0.2.10", "203.0.113.5, <script>", "192.0.2.10"),
        (["192.0.2.0/24"], "192.0.2.10", "", "192.0.2.10"),
        (["192.0.2.0/24"], "192.0.2.10", ",,", "192.0.2.10"),
        (["192.0.2.0/24"], "198.51.100.1", "203.0.113.5", "198.51.100.1"),
        (["2001:db8::/32"], "2001:db8::1", "2001:db8:ffff::9, 2001:4860::1", "2001:4860::1"),
        (["unix"], "", "203.0.113.5", "203.0.113.5"),
        ([], "", "203.0.113.5", ""),
        (["192.0.2.0/24"], "not an address", "203.0.113.5", "not an address"),
    ],
)
def test_the_address_of_the_caller(settings, trusted, peer, forwarded, expected):
    settings.TRUSTED_PROXIES = trusted
    assert client_ip(request(peer, forwarded)) == expected


@pytest.mark.parametrize("text", ["10.0.0.0/99", "example.com", "", "10.0.0"])
def test_networks_that_cannot_be_read(text):
    with pytest.raises(ValueError, match=r".+"):
        trusted_networks((text,))


def test_a_person():
    user = User(pk=7, username="bob", first_name="Bob", last_name="Brown")
    actor = actor_of(request(user=user, request_id="req_1"))
    assert (actor.kind, actor.identifier, actor.name) == ("user", "7", "Bob Brown (bob)")
    assert (actor.ip, actor.request_id) == ("192.0.2.10", "req_1")
    assert actor_of(request(user=User(pk=8, username="eve"))).name == "eve"


def test_a_key_comes_before_the_session():
    key = SimpleNamespace(pk="k1", name="ci", prefix="llmops_abcd1234")
    actor = actor_of(request(user=User(pk=7, username="bob"), service_key=key))
    assert (actor.kind, actor.identifier, actor.name) == ("service_key", "k1", "ci (llmops_abcd1234)")


@pytest.mark.parametrize("user", [None, AnonymousUser()])
def test_nobody(user):
    actor = actor_of(request(user=user))
    assert (actor.kind, actor.identifier, actor.name) == (NOBODY.kind, NOBODY.identifier, NOBODY.name)


def test_the_request_of_an_api_view_is_looked_through():
    plain = request(user=User(pk=7, username="bob"))
    assert actor_of(SimpleNamespace(_request=plain)).identifier == "7"
