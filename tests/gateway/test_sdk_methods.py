"""Whatever the installed SDK can ask of an address that is served here, is served, or is named below with why it is not.

The SDK's own source says which methods it has; a newer one that brings more shows here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from llmops.gateway.app import ORDINARY, OTHERS

pytestmark = pytest.mark.any_engine

RESOURCES = (
    "chat", "responses", "embeddings.py", "moderations.py", "models.py", "files.py", "batches.py", "images.py", "audio", "uploads",
)  # fmt: skip
METHODS = {
    "_get": "GET",
    "_get_api_list": "GET",
    "_post": "POST",
    "_patch": "PATCH",
    "_put": "PUT",
    "_delete": "DELETE",
}
#: What is left out, and why: docs/gateway-api.md says the same.
NOT_HERE = {
    ("DELETE", "/models/{}"): "models are archived in the console",
    **{
        (method, f"/audio/{path}"): "passed through where an operator lets the path through"
        for path, methods in {
            "voices": ("POST",),
            "voices/{}": ("DELETE",),
            "voice_consents": ("GET", "POST"),
            "voice_consents/{}": ("GET", "POST", "DELETE"),
        }.items()
        for method in methods
    },
}


#: A request as the SDK's methods make it, and any request at all.
REQUEST = re.compile(r"self\.(_\w+)\(\s*(?:path_template\(\s*)?\"(/[^\"]*)\"")
ANY = re.compile(r"self\.(?:_get|_get_api_list|_post|_patch|_put|_delete)\(")


def asked_by_the_sdk() -> Iterator[tuple[str, str]]:
    spec = find_spec("openai")
    assert spec is not None and spec.origin is not None
    root = Path(spec.origin).parent / "resources"
    for name in RESOURCES:
        files = [root / name] if name.endswith(".py") else sorted((root / name).rglob("*.py"))
        assert files, name
        for path in files:
            text = path.read_text()
            found = REQUEST.findall(text)
            assert len(found) == len(ANY.findall(text)), (
                f"{path.name} asks in a way that is not understood here"
            )
            for method, address in found:
                yield METHODS[method], plain(address)


def plain(template: str) -> str:
    return re.sub(r"\{[^}]*\}", "{}", template)


def test_every_method_of_the_sdk_is_served_or_named() -> None:
    served = {("POST", plain(path)) for path in ORDINARY}
    served |= {(method, plain(path)) for path, methods in OTHERS.items() for method in methods}
    asked = {(method, f"/v1{path}") for method, path in asked_by_the_sdk()}
    assert len(asked) > 40
    left_out = {(method, f"/v1{path}") for method, path in NOT_HERE}
    assert asked - served == left_out
