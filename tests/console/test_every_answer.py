"""What every answer of the console carries: a request id, a policy, no framing; and who gets which error page."""

from __future__ import annotations

import pytest
from django.templatetags.static import static
from django.test import Client

from llmops.access import services
from tests.cast import COMMAND, PASSWORD, signed_in
from tests.console.world import undone

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("given", ["req-42", "A.b_c:d-9", "x" * 64])
def test_a_plain_request_id_is_kept(given):
    assert Client().get("/admin/login/", headers={"x-request-id": given})["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", "é", "<script>", "a/b", "1\n2", "ünïcode"])
def test_any_other_is_replaced(given):
    answer = Client().get("/admin/login/", headers={"x-request-id": given})
    assert answer["x-request-id"].startswith("req_")
    assert len(answer["x-request-id"]) == 36


@pytest.mark.any_engine
def test_every_answer_has_its_headers(world):
    client = world.clients["root"]
    for address in (
        "/",
        "/admin/access/project/",
        "/api/v1/projects/",
        "/nothing-here/",
        "/api/nothing/",
        "/api/v1/docs/",
    ):
        answer = client.get(address)
        assert answer["x-request-id"], address
        assert answer["X-Frame-Options"] == "DENY", address
        assert answer["X-Content-Type-Options"] == "nosniff", address
        assert "frame-ancestors 'none'" in answer["Content-Security-Policy"], address
        assert "script-src" in answer["Content-Security-Policy"], address
    assert "unsafe-inline" not in client.get("/")["Content-Security-Policy"]
    assert "unsafe-eval" not in client.get("/")["Content-Security-Policy"]


@pytest.mark.any_engine
def test_error_pages_are_html_outside_the_api(world):
    for address, status in (("/nothing-here/", 404), ("/admin/access/nothing/", 404), ("/%00", 400)):
        answer = world.clients["root"].get(address)
        assert (answer.status_code, answer["Content-Type"].split(";")[0]) == (status, "text/html"), address


@pytest.mark.any_engine
@pytest.mark.parametrize("method", ["get", "post", "put", "patch", "delete"])
@pytest.mark.parametrize(
    "address", ["/api/v1/outcomes", "/api/v1/nothing/", "/api/nothing", "/api/v1", "/api/"]
)
def test_an_unknown_address_of_the_api_is_told_in_json_whatever_the_method(method, address):
    client = Client(enforce_csrf_checks=True, headers={"authorization": "Bearer sk-llmops-nobody"})
    answer = getattr(client, method)(address)
    assert (answer.status_code, answer["Content-Type"].split(";")[0]) == (404, "application/json")
    said = answer.json()["error"]["message"]
    assert said.startswith("There is no such address in this API.")
    assert said.endswith("Those there are: /api/v1/schema/")
    assert ("end with a slash" in said) is not address.endswith("/")


@pytest.mark.any_engine
def test_a_fault_outside_the_api_is_a_page_without_its_reason(world, monkeypatch):
    from llmops.access.admin.projects import ProjectAdmin

    def breaks(*args, **kwargs):
        raise ZeroDivisionError("a secret reason")

    monkeypatch.setattr(ProjectAdmin, "get_queryset", breaks)
    client = signed_in(world.root, raise_request_exception=False)
    answer = client.get("/admin/access/project/")
    assert answer.status_code == 500
    assert "secret reason" not in answer.content.decode()
    assert answer["x-request-id"]


@pytest.mark.any_engine
def test_cookies_are_not_for_scripts_or_other_sites(world):
    client = Client()
    with undone():
        services.set_password(COMMAND, user=world.eve, password=PASSWORD)
        answer = client.post("/admin/login/", {"username": "eve", "password": PASSWORD})
    session = answer.cookies["sessionid"]
    assert session["httponly"]
    assert session["samesite"] == "Lax"


@pytest.mark.any_engine
def test_another_host_is_refused():
    assert Client().get("/admin/login/", headers={"host": "evil.example"}).status_code == 400


@pytest.mark.any_engine
def test_a_static_file_is_one_piece_with_the_headers_that_it_has():
    """Of pieces, an asynchronous answer would warn in the log."""
    client = Client()
    address = static("vendor/uplot/uPlot.min.css")
    found = client.get(address)
    assert (found.status_code, found.streaming) == (200, False)
    assert found["Content-Type"].startswith("text/css")
    assert int(found["Content-Length"]) == len(found.content) > 0
    again = client.get(address, headers={"if-modified-since": found["Last-Modified"]})
    assert (again.status_code, again.content, "Content-Type" in again) == (304, b"", False)
    head = client.head(address)
    assert (head.content, head["Content-Length"]) == (b"", found["Content-Length"])
