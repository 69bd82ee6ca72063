"""Method and path -> who answers. An ordinary call is found by one look-up of its path; all others by their segments."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmops.core.asgi import Message, Receive, Send
    from llmops.gateway.endpoints.base import Endpoint
    from llmops.gateway.plane import Plane

#: A template's last segment may stand for all the rest of a path, slashes included: ``{name*}``.
_REST = "*"


@dataclass(slots=True)
class Visit:
    """A request that no pipeline has taken yet: what a handler gets.

    ``template`` is the address as it stands in the table, ``arguments`` what its parameters stand for in this path
    (percent-decoded by the server; not checked), ``query`` the raw query string, without its question mark.
    """

    plane: Plane
    scope: Message
    receive: Receive
    send: Send
    template: str = ""
    arguments: dict[str, str] = field(default_factory=dict)

    @property
    def method(self) -> str:
        found: str = self.scope["method"]
        return found

    @property
    def path(self) -> str:
        found: str = self.scope["path"]
        return found

    @property
    def query(self) -> bytes:
        found: bytes = self.scope.get("query_string", b"")
        return found


Handler = Callable[[Visit], Awaitable[None]]
Methods = Mapping[str, Handler]


class Addresses:
    """``ordinary`` maps the path of a POST to the endpoint that the pipeline serves; ``others`` maps a path template such
    as ``/v1/files/{file}/content`` to the handler of each method. A path may stand in both."""

    def __init__(self, ordinary: Mapping[str, Endpoint], others: Mapping[str, Methods]) -> None:
        self.ordinary = dict(ordinary)
        self._exact: dict[str, Methods] = {}
        #: by the number of segments: the segments of a template, the template, its methods
        self._templates: dict[int, list[tuple[list[str], str, Methods]]] = {}
        self._rests: list[tuple[str, str, str, Methods]] = []
        for template, methods in others.items():
            if "{" not in template:
                self._exact[template] = methods
            elif template.endswith(_REST + "}"):
                start, _, name = template.rpartition("{")
                self._rests.append((start, name[: -len(_REST + "}")], template, methods))
            else:
                parts = template.split("/")
                self._templates.setdefault(len(parts), []).append((parts, template, methods))
        for entries in self._templates.values():
            # Words before parameters: /v1/files/new is not the file "new" where both stand in the table.
            entries.sort(key=lambda entry: [part.startswith("{") for part in entry[0]])

    def find(self, visit: Visit) -> tuple[Handler | None, list[str]]:
        """The handler of ``visit``, whose ``template`` and ``arguments`` are filled, and the methods that its path takes.

        Without a handler: the path takes other methods, or, with none at all, there is nothing at it.
        """
        path, method = visit.path, visit.method
        allowed = ["POST"] if path in self.ordinary else []
        methods = self._methods(path, visit)
        if methods is None:
            return None, allowed
        return methods.get(method), sorted({*allowed, *methods})

    def _methods(self, path: str, visit: Visit) -> Methods | None:
        found = self._exact.get(path)
        if found is not None:
            visit.template = path
            return found
        segments = path.split("/")
        for parts, template, methods in self._templates.get(len(segments), ()):
            arguments = _match(parts, segments)
            if arguments is not None:
                visit.template, visit.arguments = template, arguments
                return methods
        for start, name, template, methods in self._rests:
            if path.startswith(start) and len(path) > len(start):
                visit.template, visit.arguments = template, {name: path[len(start) :]}
                return methods
        return None


def _match(parts: list[str], segments: list[str]) -> dict[str, str] | None:
    arguments = {}
    for part, segment in zip(parts, segments, strict=True):
        if part.startswith("{"):
            if not segment:
                return None
            arguments[part[1:-1]] = segment
        elif part != segment:
            return None
    return arguments
