"""Method and path -> who answers."""

from __future__ import annotations

from typing import Any

import pytest

from llmops.gateway.addresses import Addresses, Visit
from llmops.gateway.endpoints.chat import CHAT


async def whole(visit: Visit) -> None: ...


async def gone(visit: Visit) -> None: ...


async def content(visit: Visit) -> None: ...


ADDRESSES = Addresses(
    {"/v1/chat/completions": CHAT},
    {
        "/v1/chat/completions": {"GET": whole},
        "/v1/files/{file}": {"GET": whole, "DELETE": gone},
        "/v1/files/{file}/content": {"GET": content},
        "/v1/files/mine/content": {"GET": whole},
        "/v1/models/{name*}": {"GET": whole},
    },
)


def find(method: str, path: str) -> tuple[Any, list[str], Visit]:
    visit = Visit(None, {"method": method, "path": path, "query_string": b"limit=2"}, None, None)  # type: ignore[arg-type]
    handler, allowed = ADDRESSES.find(visit)
    return handler, allowed, visit


@pytest.mark.parametrize(
    ("method", "path", "handler", "arguments"),
    [
        ("GET", "/v1/chat/completions", whole, {}),
        ("GET", "/v1/files/file-1", whole, {"file": "file-1"}),
        ("DELETE", "/v1/files/file-1", gone, {"file": "file-1"}),
        ("GET", "/v1/files/file-1/content", content, {"file": "file-1"}),
        ("GET", "/v1/files/mine/content", whole, {}),
        ("GET", "/v1/models/a/b", whole, {"name": "a/b"}),
    ],
)
def test_a_path_leads_to_its_handler(method: str, path: str, handler: Any, arguments: dict[str, str]) -> None:
    found, _, visit = find(method, path)
    assert found is handler
    assert visit.arguments == arguments
    assert visit.query == b"limit=2"


def test_the_template_is_known() -> None:
    assert find("GET", "/v1/files/file-1/content")[2].template == "/v1/files/{file}/content"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/v1/chat/completions", ["GET", "POST"]),
        ("PUT", "/v1/files/file-1", ["DELETE", "GET"]),
        ("POST", "/v1/files/mine/content", ["GET"]),
    ],
)
def test_another_method_learns_which_ones_there_are(method: str, path: str, allowed: list[str]) -> None:
    assert find(method, path)[:2] == (None, allowed)


@pytest.mark.parametrize(
    "path", ["/v1/files/", "/v1/files//content", "/v1/models/", "/v1/files/a/b/c", "/v1", ""]
)
def test_other_paths_lead_nowhere(path: str) -> None:
    assert find("GET", path)[:2] == (None, [])
