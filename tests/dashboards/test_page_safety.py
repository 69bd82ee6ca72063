"""What pages must not hold, what they say when something is wrong, and that their navigation opens."""

from __future__ import annotations

import re
from collections import Counter
from datetime import UTC, datetime
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from llmops.usage.models import Call
from tests.dashboards import seed
from tests.dashboards.conftest import signed_in
from tests.dashboards.reading import text_of

pytestmark = pytest.mark.django_db


class Markup(HTMLParser):
    """Collects what the strict policy would refuse."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.ids: Counter[str] = Counter()
        self.unnamed: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        for name, value in attributes:
            if name.startswith("on") or name == "style" or name.startswith("x-"):
                self.found.append(f"{tag} {name}={value}")
            if name in ("href", "src", "action") and (value or "").lower().startswith(
                ("javascript:", "http:", "https:")
            ):
                self.found.append(f"{tag} {name}={value}")
        if tag == "script" and not given.get("src") and given.get("type") != "application/json":
            self.found.append("inline script")
        if tag == "style":
            self.found.append("inline style")
        if given.get("id"):
            self.ids[str(given["id"])] += 1


@pytest.mark.any_engine
@pytest.mark.parametrize(
    "address", ["/?range=24h", "/calls/?range=24h", "/jobs/", "story", "/no/such/page/", "/admin/login/"]
)
def test_own_pages_hold_nothing_that_their_policy_refuses(
    alice: Client, day: list[Call], address: str
) -> None:
    client = Client() if address == "/admin/login/" else alice
    page = client.get(f"/calls/{day[-1].pk}/" if address == "story" else address)
    policy = dict(part.split(" ", 1) for part in page["content-security-policy"].split("; "))
    assert policy["script-src"] == "'self'"
    assert policy["style-src"] == "'self'"
    assert (policy["default-src"], policy["frame-ancestors"], policy["base-uri"]) == (
        "'none'",
        "'none'",
        "'none'",
    )
    markup = Markup()
    markup.feed(page.content.decode())
    assert markup.found == []
    assert {name: times for name, times in markup.ids.items() if times > 1} == {}
    assert page.status_code == 404 or "no-store" in page["cache-control"]


@pytest.mark.any_engine
def test_the_admin_gets_what_it_needs_and_no_inline_script(alice: Client) -> None:
    policy = alice.get("/admin/access/project/")["content-security-policy"]
    assert "script-src 'self' 'unsafe-eval';" in f"{policy};"
    assert "frame-ancestors 'none'" in policy


@pytest.mark.any_engine
def test_what_callers_send_is_shown_as_text(alice: Client, stage: SimpleNamespace) -> None:
    evil = "</script><script>alert(1)</script>"
    (call,) = seed.store(
        [
            seed.make_call(
                stage, datetime.now(UTC), route=evil[:63], model=evil[:63], feature=evil, session=evil, tags=[evil],
                error_code=evil[:60], error_message=evil, upstream_model=evil, cost_nano=0,
                attempts=[seed.attempt(1, evil, note=evil, why=evil, code=evil, provider_request=evil)],
            )
        ]
    )  # fmt: skip
    for address in ("/", "/calls/", f"/calls/{call.pk}/", "/live/"):
        answer = alice.get(address)
        assert answer.status_code == 200
        assert "<script>alert" not in answer.content.decode()
    typed = alice.get("/calls/", {"route": '"><script>alert(1)</script>', "q": "<b>x"}).content.decode()
    assert "<script>alert" not in typed
    assert "<b>x" not in typed


@pytest.mark.any_engine
@pytest.mark.parametrize("template", ["400", "403", "403_csrf", "404", "500"])
def test_error_pages_need_no_database_and_say_what_to_do(template: str, client: Client) -> None:
    from django.template.loader import get_template

    with CaptureQueriesContext(connection) as queries:
        html = get_template(f"{template}.html").render()
    assert len(queries) == 0
    assert 'class="button primary"' in html


@pytest.mark.any_engine
def test_a_fault_ends_in_the_page_for_faults(alice: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the database went away")

    monkeypatch.setattr("llmops.dashboards.overview.build", broken)
    alice.raise_request_exception = False
    answer = alice.get("/")
    assert answer.status_code == 500
    assert "The console failed to answer" in text_of(answer)
    assert "database went away" not in text_of(answer)
    assert answer["content-security-policy"]


def navigation(client: Client) -> list[str]:
    html = client.get("/").content.decode()
    html = html[html.index('<nav class="shell-nav"') : html.index("</nav>")]
    return re.findall(r"<span>([^<]+)</span></a></li>", html)


@pytest.mark.any_engine
def test_the_navigation_offers_what_opens(stage: SimpleNamespace) -> None:
    everything = [
        "Overview", "Alerts", "Reliability", "Traffic", "Quality", "Spend", "Reconciliation", "Playground", "Calls", "Datasets", "Runs",
        "Switches", "Jobs", "Readiness", "Providers", "Credentials", "Rotations", "Models", "Prices", "Routes", "What if", "Prompts", "Policies",
        "Tools", "Revisions", "Projects", "Service keys", "Members", "Users", "Master keys", "Budgets", "Inbox", "Actions",
        "Alert rules", "SLOs", "Alert channels", "Approvals", "Audit",
    ]  # fmt: skip
    assert navigation(signed_in(stage.alice)) == everything
    assert navigation(signed_in(stage.charlie)) == ["Overview"]
    finance = signed_in(seed.person("fiona", ("finance", stage.support)))
    assert navigation(finance) == [
        "Overview", "Alerts", "Reliability", "Traffic", "Quality", "Spend", "Calls", "Switches", "Jobs", "Models", "Prices", "Routes",
        "What if", "Projects", "Budgets", "Inbox", "Alert rules", "SLOs", "Alert channels", "Approvals",
    ]  # fmt: skip
    for client in (
        finance,
        signed_in(stage.bob),
        signed_in(seed.person("rita", ("reviewer", stage.support))),
    ):
        html = client.get("/").content.decode()
        for address in re.findall(r'<li><a href="([^"]+)"', html[: html.index("</nav>")]):
            assert client.get(address).status_code == 200, address
    # The admin shows the same navigation.
    assert navigation(finance) == re.findall(
        r"<span>([^<]+)</span></a></li>",
        finance.get("/admin/access/project/").content.decode().split("</nav>")[0],
    )
