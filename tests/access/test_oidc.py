"""Signing in with OpenID Connect, against a provider over real HTTP whose tokens are right or wrong in every part."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from django.test import Client

from llmops.access import oidc, services
from llmops.access.models import Membership, OidcIdentity
from llmops.audit.models import Event
from llmops.core.errors import ConfigurationRefused
from tests.cast import COMMAND, PASSWORD, last_sequence
from tests.providers.answering import Answering, answer

pytestmark = pytest.mark.django_db
KEY, OTHER_KEY = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))
CLIENT_SECRET = "oidc-secret-PLANTED"


class Idp:
    """``claims`` change the token; ``forge`` signs it otherwise."""

    def __init__(self, server: Answering) -> None:
        self.server = server
        self.issuer = f"http://127.0.0.1:{server.port}"
        self.claims: dict[str, Any] = {}
        self.token: str | None = None
        self.challenge = self.nonce = ""
        server.script = self.serve

    def serve(self, request: Any) -> None:
        path = urlsplit(request.path).path
        if path == "/.well-known/openid-configuration":
            body: Any = {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/keys",
            }
        elif path == "/keys":
            key = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(KEY.public_key()))
            body = {"keys": [{**key, "kid": "k1", "alg": "RS256", "use": "sig"}]}
        else:
            form = parse_qs(self.server.asked[-1][3].decode())
            digest = hashlib.sha256(form["code_verifier"][0].encode()).digest()
            if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != self.challenge or form["code"] != [
                "good"
            ]:
                answer(400, b'{"error": "invalid_grant"}')(request)
                return
            body = {"access_token": "at", "id_token": self.token or self.signed()}
        answer(200, json.dumps(body).encode())(request)

    def signed(self, key: Any = KEY, algorithm: str = "RS256", kid: str = "k1", **changes: Any) -> str:
        now = int(time.time())
        claims = {
            "iss": self.issuer, "aud": "console", "sub": "person-1", "iat": now, "exp": now + 60, "nonce": self.nonce,
            "preferred_username": "ada", "email": "ada@example.com", "groups": ["ops"], **self.claims, **changes,
        }  # fmt: skip
        claims = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(claims, key, algorithm=algorithm, headers={"kid": kid})


@pytest.fixture
def idp(answering, settings, cast):
    found = Idp(answering())
    settings.OIDC_ISSUER, settings.OIDC_CLIENT_ID, settings.OIDC_CLIENT_SECRET = (
        found.issuer,
        "console",
        CLIENT_SECRET,
    )
    settings.OIDC_ROLES = "ops=operator@support, boss=admin, money=finance"
    return found


def begin(idp: Idp, client: Client, next_: str = "") -> str:
    """What the provider was asked; answers the state."""
    went = client.get(f"/account/oidc/?next={next_}")
    assert went.status_code == 302, went.content
    asked = {name: value[0] for name, value in parse_qs(urlsplit(went["Location"]).query).items()}
    assert asked["redirect_uri"] == "http://testserver/account/oidc/callback/"
    assert (asked["scope"], asked["code_challenge_method"]) == ("openid email profile", "S256")
    idp.challenge, idp.nonce = asked["code_challenge"], asked["nonce"]
    return asked["state"]


def come_back(client: Client, state: str, code: str = "good", **more: str) -> Any:
    return client.get("/account/oidc/callback/", {"state": state, "code": code, **more})


def sign_in(idp: Idp, **claims: Any) -> tuple[Client, Any]:
    client = Client()
    idp.claims = claims
    return client, come_back(client, begin(idp, client))


def is_in(client: Client) -> bool:
    return client.get("/account/").status_code == 200


def roles(name: str) -> set[tuple[str, str | None]]:
    rows = Membership.objects.filter(user__username=name).values_list("role", "project__slug")
    return set(rows)


def test_who_comes_first_gets_an_account_with_the_roles_of_their_groups(idp):
    before = last_sequence()
    client = Client()
    assert "Sign in with your organisation" in client.get("/admin/login/").content.decode()
    answered = come_back(client, begin(idp, client, next_="/calls/"))
    assert (answered.status_code, answered["Location"]) == (302, "/calls/")
    assert is_in(client)
    identity = OidcIdentity.objects.get()
    assert (identity.user.username, identity.subject) == ("ada", "person-1")
    assert not identity.user.has_usable_password()
    assert roles("ada") == {("operator", "support")}
    actions = list(
        Event.objects.filter(sequence__gt=before).order_by("sequence").values_list("action", "actor_name")
    )
    assert actions == [
        ("user.created", "sign-in by OpenID Connect"),
        ("member.added", "sign-in by OpenID Connect"),
        ("session.signed_in", "ada"),
    ]
    token_call = next(one for one in idp.server.asked if one[1] == "/token")
    assert (
        token_call[2]["Authorization"]
        == "Basic " + base64.b64encode(f"console:{CLIENT_SECRET}".encode()).decode()
    )


def test_roles_follow_the_groups_with_each_sign_in_and_the_account_its_subject(idp):
    sign_in(idp)
    sign_in(idp, groups=["boss", "money", "nothing"], preferred_username="ada-renamed")
    assert roles("ada") == {("admin", None), ("finance", None)}
    assert OidcIdentity.objects.count() == 1
    sign_in(idp, groups="ops")
    assert roles("ada") == {("operator", "support")}


@pytest.mark.any_engine
def test_without_a_role_nobody_comes_in(idp):
    client, answered = sign_in(idp, groups=["nothing"])
    assert answered.status_code == 403
    assert "no role here follows" in answered.content.decode()
    assert not is_in(client)
    assert not OidcIdentity.objects.exists()


def test_nobody_becomes_somebody_else_by_a_name(idp):
    services.create_user(COMMAND, username="root2", password=PASSWORD, is_superuser=True)
    client, answered = sign_in(idp, preferred_username="ROOT2")
    assert (answered.status_code, is_in(client)) == (403, False)
    assert "not yours by this sign-in" in answered.content.decode()


def test_a_closed_account_stays_closed(idp):
    sign_in(idp)
    services.deactivate_user(COMMAND, user=OidcIdentity.objects.get().user)
    client, answered = sign_in(idp)
    assert (answered.status_code, is_in(client)) == (403, False)


@pytest.mark.any_engine
@pytest.mark.parametrize(
    "forged",
    [
        lambda idp: idp.signed(key=OTHER_KEY),
        lambda idp: idp.signed(kid="k2"),
        lambda idp: idp.signed(iss="http://127.0.0.1:1"),
        lambda idp: idp.signed(aud="another"),
        lambda idp: idp.signed(aud=["console", "another"]),
        lambda idp: idp.signed(exp=int(time.time()) - 60),
        lambda idp: idp.signed(iat=int(time.time()) + 600),
        lambda idp: idp.signed(nonce="another"),
        lambda idp: idp.signed(nonce=None),
        lambda idp: idp.signed(sub=None),
        lambda idp: idp.signed(exp=None),
        lambda idp: idp.signed(key="", algorithm="none"),
        lambda idp: idp.signed(key="x" * 64, algorithm="HS256"),
        lambda idp: "not a token",
        lambda idp: idp.signed()[:-3] + "abc",
    ],
)
def test_a_token_that_is_wrong_in_any_part_opens_nothing(idp, forged):
    client = Client()
    state = begin(idp, client)
    idp.token = forged(idp)
    answered = come_back(client, state)
    assert (answered.status_code, is_in(client)) == (403, False)
    assert not OidcIdentity.objects.exists()


@pytest.mark.any_engine
def test_what_was_not_begun_here_or_twice_or_refused_opens_nothing(idp, monkeypatch):
    client = Client()
    state = begin(idp, client)
    assert come_back(Client(), state).status_code == 403
    assert come_back(client, "another").status_code == 403
    assert come_back(client, state).status_code == 403, "the state was taken with the wrong one"
    for more in ({"code": "bad"}, {"code": ""}, {"error": "access_denied"}, {"iss": "http://evil.example"}):
        client = Client()
        answered = come_back(client, begin(idp, client), **{"code": "good", **more})
        assert (answered.status_code, is_in(client)) == (403, False), more
        assert CLIENT_SECRET not in answered.content.decode()
    client = Client()
    state = begin(idp, client)
    later = time.time() + 301
    monkeypatch.setattr("llmops.access.account_views.time.time", lambda: later)
    assert come_back(client, state).status_code == 403


@pytest.mark.any_engine
def test_nobody_is_sent_elsewhere_afterwards(idp):
    client = Client()
    assert come_back(client, begin(idp, client, next_="https://evil.example/"))["Location"] == "/"


@pytest.mark.any_engine
def test_a_provider_that_is_away_or_another_is_told(idp, settings):
    oidc._kept.cache_clear()
    idp.server.script = answer(503)
    assert Client().get("/account/oidc/").status_code == 503
    oidc._kept.cache_clear()
    idp.server.script = answer(200, json.dumps({"issuer": "http://another"}).encode())
    assert Client().get("/account/oidc/").status_code == 503
    oidc._kept.cache_clear()
    settings.OIDC_ISSUER = "http://idp.example.com"
    assert "without https" in Client().get("/account/oidc/").content.decode()
    settings.OIDC_ISSUER = ""
    assert Client().get("/account/oidc/").status_code == 404
    assert "/account/oidc/" not in Client().get("/admin/login/").content.decode()


@pytest.mark.any_engine
def test_it_counts_as_a_second_factor_where_the_installation_says_so(idp, settings):
    settings.SECOND_FACTOR_REQUIRED = ["all"]
    client, _ = sign_in(idp)
    assert client.get("/calls/").status_code == 200
    settings.OIDC_IS_STRONG = False
    client, _ = sign_in(idp)
    assert client.get("/calls/")["Location"] == "/account/second-factor/"


@pytest.mark.parametrize("text", ["ops", "ops=chief", "ops=operator@", "=admin", "ops=operator@Not A Slug"])
def test_a_mapping_that_is_none_is_refused_by_name(text):
    with pytest.raises(ConfigurationRefused, match="CONSOLE_OIDC_ROLES"):
        oidc.role_mapping(text)


def test_a_mapping():
    assert oidc.role_mapping("a b=operator@support,*=auditor") == [
        ("a b", "operator", "support"),
        ("*", "auditor", None),
    ]
