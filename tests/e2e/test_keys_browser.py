"""An operator's ways with keys, in a browser: a probe that fails, a provider's key rotated, a service's key rotated."""

from __future__ import annotations

import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.test_browser import address, browser, context, page, session, stack  # noqa: F401
from tests.e2e.test_embedded import Embedded

PRESENT, NEW, WRONG = "simulator-needs-no-key", "sk-new-0123456789abcdef", "sk-wrong-0123456789abcdef"


@contextmanager
def accepting(stack: Embedded, *keys: str) -> Iterator[Any]:  # noqa: F811
    """The simulator takes these keys only; what it takes can be changed, and in the end it takes any."""
    url = stack.ask("/api/v1/providers/simulator/", key="admin_key")["base_url"].removesuffix("/v1")

    def change(*accepted: str) -> None:
        tell(list(accepted))

    def tell(accepted: list[str] | None) -> None:
        body = json.dumps({"keys": accepted}).encode()
        request = urllib.request.Request(f"{url}/simulator/keys", body, method="PUT")
        urllib.request.urlopen(request, timeout=20).close()

    change(*keys)
    try:
        yield change
    finally:
        tell(None)


def answered(stack: Embedded, secret: str) -> int:  # noqa: F811
    body = json.dumps({"model": "chat", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3})
    request = urllib.request.Request(
        stack.first["gateway_url"] + "/chat/completions",
        body.encode(),
        {"authorization": f"Bearer {secret}", "content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        return refused.code


def becomes(status: int, stack: Embedded, secret: str) -> bool:  # noqa: F811
    """Data planes follow within a second; how long a busy machine takes is another matter."""
    end = time.monotonic() + 60
    while (found := answered(stack, secret)) != status and time.monotonic() < end:
        time.sleep(0.05)
    return found == status


def open_key(page: Page, stack: Embedded, name: str) -> None:  # noqa: F811
    page.goto(address(stack, "/admin/providers/credential/"))
    page.get_by_role("row").filter(has_text="simulator").get_by_role("link", name=name, exact=True).click()


def test_a_key_that_its_provider_refuses_is_told_and_not_used(page: Page, stack: Embedded) -> None:  # noqa: F811
    with accepting(stack, PRESENT):
        page.goto(address(stack, "/admin/providers/credential/add/"))
        page.get_by_label("Provider").select_option(label="Simulator")
        page.get_by_label("Name").fill("second")
        page.get_by_label("Key", exact=True).fill(WRONG)
        page.get_by_role("button", name="Save", exact=True).click()
        open_key(page, stack, "second")
        page.get_by_role("link", name="Probe", exact=True).click()
        page.get_by_role("button", name="Probe").click()
        expect(page.get_by_text(re.compile("401")).first).to_be_visible()
        open_key(page, stack, "second")
        expect(page.get_by_text("Staged", exact=True).first).to_be_visible()
        assert WRONG not in page.content()
        # Used all the same only with a reason.
        page.get_by_role("link", name="Activate", exact=True).click()
        page.get_by_role("button", name="Activate").click()
        expect(page.get_by_text("This key was never seen working.")).to_be_visible()
        assert answered(stack, stack.first["service_key"]) == 200


@pytest.mark.timeout(600)
def test_a_providers_key_is_rotated_and_no_call_fails(page: Page, stack: Embedded) -> None:  # noqa: F811
    with accepting(stack, PRESENT, NEW) as accept:
        open_key(page, stack, "primary")
        page.get_by_role("link", name="Rotate", exact=True).click()
        page.get_by_label("Key", exact=True).fill(WRONG)
        page.get_by_role("button", name="Rotate").click()
        expect(page.get_by_text("Nothing was changed").first).to_be_visible()
        assert WRONG not in page.content()
        page.get_by_label("Key", exact=True).fill(NEW)
        page.get_by_role("button", name="Rotate").click()
        expect(page.get_by_text("Nothing uses it yet")).to_be_visible()
        assert NEW not in page.content()
        page.get_by_role("link", name="Use the new key").click()
        page.get_by_role("button", name="Use the new key").click()
        expect(page.get_by_text("The new key is in use; the old one drains.")).to_be_visible()
        assert answered(stack, stack.first["service_key"]) == 200
        page.get_by_role("link", name="Revoke the old key").click()
        page.get_by_label("Reason").fill("it leaked")
        page.get_by_role("button", name="Revoke the old key").click()
        expect(page.get_by_text("The old key is revoked here.")).to_be_visible()
        accept(NEW)
        assert becomes(200, stack, stack.first["service_key"])


def test_a_services_key_is_rotated_with_time_to_change_over(page: Page, stack: Embedded) -> None:  # noqa: F811
    made = stack.ask(
        "/api/v1/service-keys/",
        {"project": "support", "name": "rotated here", "scopes": ["inference"], "allowed_models": ["*"]},
        key="admin_key",
    )
    assert becomes(200, stack, made["secret"])
    page.goto(address(stack, f"/admin/access/servicekey/{made['id']}/change/"))
    page.get_by_role("link", name="Rotate", exact=True).click()
    page.get_by_role("button", name="Rotate").click()
    shown = re.search(r"llmops_\w{8}_[\w-]{30,}", page.inner_text("body"))
    assert shown is not None
    assert becomes(200, stack, shown[0]) and answered(stack, made["secret"]) == 200
    page.goto(address(stack, f"/admin/access/servicekey/{made['id']}/change/"))
    assert shown[0] not in page.content()
    page.get_by_role("link", name="End the earlier secret").click()
    page.get_by_role("button", name="End the earlier secret").click()
    expect(page.get_by_text("Only the present secret of")).to_be_visible()
    assert becomes(401, stack, made["secret"]) and answered(stack, shown[0]) == 200
