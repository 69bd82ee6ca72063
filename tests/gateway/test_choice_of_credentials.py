"""Which credential a call uses: those that were refused are avoided, those near their limit spared, none given up for good."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.gateway.attempts.credentials import (
    AVOID_S,
    MOST_REST_S,
    REFUSED_WHY,
    RESTING_WHY,
    SPENT_WHY,
    Credentials,
    seconds_of,
)
from llmops.gateway.attempts.failures import AUTH, STATUS, Failure
from llmops.serving.snapshot import CredentialEntry
from llmops.usage.records import CredentialSeen
from tests.gateway.rig import (
    KEY,
    SECRET,
    Asked,
    Reply,
    Rig,
    a_credential,
    a_key,
    a_model,
    a_provider,
    a_route,
    answers,
    completion,
    fails,
)

A = CredentialEntry(id="a", name="a", provider="up", secret="s-a")
B = CredentialEntry(id="b", name="b", provider="up", secret="s-b")
OLD = CredentialEntry(id="old", name="old", provider="up", secret="s-old", draining=True)
REFUSED = Failure(AUTH, "", status=401)


def chosen(
    credentials: Credentials, *entries: CredentialEntry, need: int = 0, now: float = 0.0
) -> tuple[str, str]:
    choice = credentials.choose(entries or (A, B), "m", need, now)
    assert choice is not None
    return choice.credential.id, choice.reason


def limits(left: Any, limit: Any = 100, reset: str = "60s", what: str = "requests") -> dict[str, str]:
    return {
        f"x-ratelimit-remaining-{what}": str(left),
        f"x-ratelimit-limit-{what}": str(limit),
        f"x-ratelimit-reset-{what}": reset,
    }


def test_the_first_is_used_while_nothing_is_known() -> None:
    credentials = Credentials()
    assert {chosen(credentials) for _ in range(10)} == {("a", "")}
    assert credentials.choose((), "m", 0, 0.0) is None
    assert credentials.choose((A,), "m", 0, 0.0, but={"a"}) is None


def test_a_refused_one_is_avoided_and_found_out_by_one_call_now_and_then() -> None:
    credentials = Credentials()
    assert credentials.failed("a", "m", REFUSED, 0.0) == "refused"
    assert credentials.failed("a", "m", REFUSED, 0.0) == "", "only the change is news"
    assert chosen(credentials) == ("b", "")
    later = 10 * AVOID_S
    assert [chosen(credentials, now=later)[0] for _ in range(5)] == ["a", "b", "b", "b", "b"]
    assert credentials.accepted("a", "m")
    assert not credentials.accepted("a", "m")
    assert chosen(credentials, now=later)[0] == "a"


def test_it_is_avoided_longer_after_each_refusal() -> None:
    credentials = Credentials()
    until = []
    for _ in range(12):
        credentials.failed("a", "m", REFUSED, 0.0)
        until.append(next(now for now in range(0, 10_000) if chosen(credentials, A, now=now)[1] == ""))
        credentials._of["a"].avoid_until = 0.0
    assert until[:3] == [AVOID_S, 2 * AVOID_S, 4 * AVOID_S]
    assert max(until) == 300.0


def test_a_permission_is_missing_for_one_model_a_quota_for_all() -> None:
    credentials = Credentials()
    assert credentials.failed("a", "m", Failure(AUTH, "", status=403), 0.0) == "refused"
    assert credentials.choose((A,), "m", 0, 0.0).reason == REFUSED_WHY
    assert credentials.choose((A,), "n", 0, 0.0).reason == ""
    assert (
        credentials.failed("b", "m", Failure(STATUS, "", status=429, code="insufficient_quota"), 0.0)
        == "quota"
    )
    assert credentials.choose((B,), "n", 0, 0.0).reason == REFUSED_WHY


MAY_BE_THE_REQUEST = (
    Failure(AUTH, "", status=403),
    Failure(STATUS, "", status=402, code="insufficient_quota"),
)


@pytest.mark.parametrize("failure", MAY_BE_THE_REQUEST)
def test_a_refusal_that_may_be_about_the_request_is_believed_of_no_credential_in_use(
    failure: Failure,
) -> None:
    credentials = Credentials()
    credentials.accepted("a", "m", 100.0)
    for _ in range(5):
        assert credentials.failed("a", "m", failure, 101.0, "evil") == ""
    assert chosen(credentials, now=101.0) == ("a", "")
    assert credentials.failed("a", "m", REFUSED, 101.0, "evil") == "refused", "a 401 is about the key"
    assert chosen(credentials, now=101.0) == ("b", "")


@pytest.mark.parametrize("failure", MAY_BE_THE_REQUEST)
def test_whom_it_met_avoids_it_and_all_do_once_another_met_it(failure: Failure) -> None:
    def reason(project: str) -> str:
        choice = credentials.choose((A,), "m", 0, 101.0, project=project)
        assert choice is not None
        return choice.reason

    credentials = Credentials()
    assert credentials.failed("a", "m", failure, 100.0, "evil") != "", "an operator is to know all the same"
    assert (reason("evil"), reason("good")) == (REFUSED_WHY, "")
    credentials.failed("a", "m", failure, 101.0, "good")
    assert (reason("evil"), reason("good"), reason("third")) == (REFUSED_WHY,) * 3
    assert credentials.accepted("a", "m", 102.0)
    assert reason("evil") == ""


def test_after_a_429_it_rests_until_the_provider_takes_it_again() -> None:
    credentials = Credentials()
    credentials.failed("a", "m", Failure(STATUS, "", status=429, retry_after=20.0), 0.0)
    assert chosen(credentials, now=19.9) == ("b", "")
    alone = credentials.choose((A,), "m", 0, 5.0)
    assert (alone.reason, alone.wait) == (RESTING_WHY, 15.0)
    assert chosen(credentials, A, now=20.0) == ("a", "")
    credentials.failed("a", "m", Failure(STATUS, "", status=429, retry_after=86_400.0), 100.0)
    assert chosen(credentials, A, now=100.0 + MOST_REST_S) == ("a", ""), "nobody rests for a day unseen"
    credentials.failed("a", "m", Failure(STATUS, "", status=429), 1_000.0)
    assert chosen(credentials, A, now=1_000.0) == ("a", ""), "without a time there is nothing to wait for"


def test_calls_go_where_there_is_most_headroom() -> None:
    credentials = Credentials()
    credentials.heard("a", "m", limits(30), 0.0)
    credentials.heard("b", "m", limits(80), 0.0)
    used = [chosen(credentials)[0] for _ in range(110)]
    assert used[:50] == ["b"] * 50
    assert set(used[50:54]) == {"a", "b"}
    assert sorted(used) == ["a"] * 30 + ["b"] * 80
    assert chosen(credentials)[1] == SPENT_WHY, "before the 429"
    assert chosen(credentials, now=30.0)[1] == "", "it fills again by and by"


def test_tokens_count_as_requests_do() -> None:
    credentials = Credentials()
    credentials.heard("a", "m", limits(5_000, 10_000, what="tokens"), 0.0)
    assert chosen(credentials, A, need=4_000) == ("a", "")
    assert chosen(credentials, A, need=4_000) == ("a", SPENT_WHY)
    assert chosen(credentials, A, need=900) == ("a", "")
    assert chosen(credentials, A, need=1_000_000, now=60.0) == ("a", ""), (
        "what never fits is the provider's to refuse"
    )
    assert chosen(credentials, A, B, need=4_000) == ("b", "")


def test_a_draining_one_is_for_calls_that_nothing_else_can_serve() -> None:
    credentials = Credentials()
    assert chosen(credentials, A, OLD) == ("a", "")
    credentials.failed("a", "m", Failure(STATUS, "", status=429, retry_after=20.0), 0.0)
    assert chosen(credentials, A, OLD) == ("a", RESTING_WHY), "the old one is no more room"
    credentials.failed("a", "m", REFUSED, 0.0)
    assert chosen(credentials, A, OLD) == ("old", "")
    assert chosen(credentials, OLD) == ("old", "")


def test_what_is_no_longer_served_is_forgotten() -> None:
    credentials = Credentials()
    credentials.failed("a", "m", REFUSED, 0.0)
    credentials.heard("b", "m", limits(0), 0.0)
    credentials.forget_all_but({"b"})
    assert chosen(credentials, A) == ("a", "")
    assert chosen(credentials, B) == ("b", SPENT_WHY)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("1m30.5s", 90.5),
        ("20ms", 0.02),
        ("1h2m3s", 3_723.0),
        ("1d", 86_400.0),
        ("59.87", 59.87),
        ("0", 0.0),
        ("1764144000", None),
        ("", None),
        (None, None),
        ("soon", None),
        ("-5", None),
        ("nan", None),
        ("9" * 40, None),
    ],
)
def test_resets_are_read_as_providers_write_them(text: str | None, seconds: float | None) -> None:
    assert seconds_of(text) == seconds


_figures = st.one_of(st.none(), st.integers(-5, 10**22).map(str), st.text(max_size=6))


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["requests", "tokens"]),
            _figures,
            _figures,
            st.text(max_size=8),
            st.floats(0, 100),
        ),
        max_size=8,
    ),
    st.integers(0, 10**7),
)
def test_no_headers_make_a_credential_unusable_for_good(heard: list[Any], need: int) -> None:
    credentials = Credentials()
    for what, left, limit, reset, now in heard:
        named = {"remaining": left, "limit": limit, "reset": reset}
        headers = {f"x-ratelimit-{part}-{what}": value for part, value in named.items() if value is not None}
        credentials.heard("a", "m", headers, now)
        choice = credentials.choose((A,), "m", need, now)
        assert choice is not None
        assert choice.reason in ("", SPENT_WHY)
    assert chosen(credentials, A, need=need, now=10**9) == ("a", "")


@given(
    st.lists(
        st.tuples(st.sampled_from("abco"), st.sampled_from([401, 403, 429, 402, 200]), st.floats(0, 50)),
        max_size=30,
    )
)
def test_there_is_always_one_to_use_or_to_wait_for(events: list[tuple[str, int, float]]) -> None:
    """Whatever happens, no set of credentials is without a choice, and a usable one is taken when there is one."""
    credentials, now = Credentials(), 0.0
    for which, status, passed in events:
        now += passed
        if status == 200:
            credentials.accepted(which, "m")
        else:
            kind = AUTH if status in (401, 403) else STATUS
            code = "insufficient_quota" if status == 402 else ""
            credentials.failed(which, "m", Failure(kind, "", status=status, code=code, retry_after=3.0), now)
        choice = credentials.choose((A, B, OLD), "m", 10, now)
        assert choice is not None
        if choice.reason == REFUSED_WHY:
            everyone = [credentials._judge(one, "m", 10, now)[0].reason for one in (A, B, OLD)]
            assert set(everyone) == {REFUSED_WHY}
    for entry in (A, B, OLD):
        assert credentials._judge(entry, "m", 10, now + 1_000)[0].reason == ""


# ---------------------------------------------------------------------- over a plane


def two(rig: Rig, **more: Any) -> tuple[CredentialEntry, CredentialEntry]:
    first, second = (
        a_credential(secret="one-" + SECRET, name="one"),
        a_credential(secret="two-" + SECRET, name="two"),
    )
    rig.configure(credentials={"up": (first, second)}, **more)
    return first, second


def used(rig: Rig) -> list[str]:
    return [one.headers["authorization"].removeprefix("Bearer ").split("-")[0] for one in rig.upstream.asked]


async def test_a_refused_credential_is_not_asked_again_for_a_while(rig: Rig) -> None:
    first, _ = two(rig)

    async def script(asked: Asked, reply: Reply) -> None:
        await (fails(401) if "one-" in asked.headers["authorization"] else answers())(asked, reply)

    rig.upstream.does(script)
    for _ in range(4):
        assert (await rig.chat()).status == 200
    assert used(rig) == ["one", "two", "two", "two", "two"]
    seen = [one for one in rig.records() if isinstance(one, CredentialSeen)]
    assert [(one.credential, one.status, one.code) for one in seen] == [(first.id, 401, "refused")]


async def test_a_quota_that_is_used_up_moves_to_the_next_credential(rig: Rig) -> None:
    first, _ = two(rig)

    async def script(asked: Asked, reply: Reply) -> None:
        good = "two-" in asked.headers["authorization"]
        await (answers() if good else fails(429, "insufficient_quota"))(asked, reply)

    rig.upstream.does(script)
    answer = await rig.chat()
    assert (answer.status, answer.headers["x-llmops-attempts"]) == (200, "2")
    assert (await rig.chat()).headers["x-llmops-attempts"] == "1"
    [seen] = [one for one in rig.records() if isinstance(one, CredentialSeen)]
    assert (seen.credential, seen.code) == (first.id, "quota")


async def test_traffic_moves_before_the_429(rig: Rig) -> None:
    """Two credentials of three calls a minute each, and a provider that keeps count: no call meets a 429."""
    two(rig)
    left = {"one": 3, "two": 3}

    async def script(asked: Asked, reply: Reply) -> None:
        name = asked.headers["authorization"].removeprefix("Bearer ").split("-")[0]
        if not left[name]:
            await fails(429, "rate_limit_exceeded")(asked, reply)
            return
        left[name] -= 1
        await reply.json(completion(), headers=limits(left[name], 3))

    rig.upstream.does(script)
    for _ in range(6):
        answer = await rig.chat()
        assert (answer.status, answer.headers["x-llmops-attempts"]) == (200, "1")
    assert sorted(used(rig)) == ["one"] * 3 + ["two"] * 3


async def test_with_every_credential_at_its_limit_the_next_target_is_asked_first(rig: Rig) -> None:
    rig.configure(
        providers=[a_provider("up", rig.upstream.url), a_provider("spare", rig.upstream.url)],
        models=[a_model("small"), a_model("large", "spare")],
        routes=[a_route("chat", "small", fallbacks=("large",))],
    )

    async def script(asked: Asked, reply: Reply) -> None:
        await reply.json(completion(), headers=limits(0, 3))

    rig.upstream.does(script)
    await rig.chat(model="chat")
    rig.upstream.does(answers())
    answer = await rig.chat(model="chat")
    assert answer.headers["x-llmops-model"] == "large"
    assert answer.headers["x-llmops-attempts"] == "1"
    last = [one.outcome for one in rig.ended() if one.outcome][-1]
    assert last.attempts[0].why == f"small is passed over: {SPENT_WHY}"
    assert last.fallbacks == 1


async def test_a_limit_is_only_reckoned_and_keeps_no_call_from_its_only_model(rig: Rig) -> None:
    async def script(asked: Asked, reply: Reply) -> None:
        await reply.json(completion(), headers=limits(0, 3))

    rig.upstream.does(script)
    assert [(await rig.chat()).status for _ in range(3)] == [200, 200, 200]


async def test_a_rest_that_nobody_can_wait_for_is_a_429_with_its_time(rig: Rig) -> None:
    rig.configure(routes=[a_route("chat", attempts=1)])
    rig.upstream.does(fails(429, headers={"retry-after": "40"}))
    assert (await rig.chat(model="chat")).status == 429
    answer = await rig.chat(model="chat")
    assert (answer.status, answer.error["code"]) == (429, "rate_limit_exceeded")
    assert 30 <= int(answer.headers["retry-after"]) <= 40
    assert len(rig.upstream.asked) == 1, "the provider said when"


async def test_another_credential_costs_no_attempt_of_the_route(rig: Rig) -> None:
    """A route that tries once still gets its one try when a credential is refused on the way."""

    async def script(asked: Asked, reply: Reply) -> None:
        if asked.headers["authorization"].endswith("s-new"):
            await reply.json({"error": {"message": "Incorrect API key"}}, status=401)
        else:
            await reply.json(completion("hi"))

    rig.upstream.does(script)
    rig.configure(
        routes=(a_route(attempts=1),),
        credentials={
            "up": (
                CredentialEntry(id="new", name="new", provider="up", secret="s-new"),
                CredentialEntry(id="old", name="old", provider="up", secret="s-old", draining=True),
            )
        },
    )
    answer = await rig.chat(model="chat")
    assert answer.status == 200, answer.body
    assert [one.code for one in rig.outcome().attempts] == ["upstream_auth", ""]


async def test_a_tenant_whose_words_are_forbidden_takes_no_credential_from_others(rig: Rig) -> None:
    """A wall before the provider answers its requests with 403, a model's own check tells its words again: all others go on."""
    other = "llmops_othersss_" + "o" * 40
    rig.configure(
        keys={KEY: a_key(), other: a_key("evil", project="evil")},
        models=[a_model(), a_model("spare")],
        routes=[a_route("chat", "small", fallbacks=("spare",))],
    )

    async def walled(asked: Asked, reply: Reply) -> None:
        if b"<script>" in asked.body:
            await reply.json({"error": {"message": "Forbidden"}}, status=403)
        elif b"api key" in asked.body:
            await reply.json({"error": {"message": "Invalid value: 'invalid api key'"}}, status=400)
        else:
            await reply.json(completion())

    rig.upstream.does(walled)
    for _ in range(4):
        for words in ("<script>", "invalid api key"):
            assert (await rig.chat(model="chat", text=words, how={"key": other})).status in (400, 502)
        answer = await rig.chat(model="chat")
        assert (answer.status, answer.headers["x-llmops-model"]) == (200, "small")
    # By a 403 no key is taken back (``providers.services.tending``): of the words that are told again there is none.
    assert {one.status for one in rig.records() if isinstance(one, CredentialSeen)} <= {200, 403}
