"""What an ASGI application and its server say to each other (the specification's HTTP messages), as types; sending without a
task that waits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


def at_once(sending: Awaitable[None]) -> Awaitable[None] | None:
    """Do of ``sending`` what can be done without waiting: with most servers all of it, they keep what the client does not take.

    Returns what is left, to be awaited once by a task; None when nothing is. Raises what ``sending`` raises.
    """
    steps = sending.__await__()
    try:
        waits_for = next(steps)
    except StopIteration:
        return None
    return _Rest(steps, waits_for)


class _Rest:
    """An awaitable that was begun: it waits for ``waits_for``, then goes on with its ``steps`` as ``yield from`` does (PEP 380)."""

    __slots__ = ("_steps", "_waits_for")

    def __init__(self, steps: Generator[Any, Any, None], waits_for: Any) -> None:
        self._steps = steps
        self._waits_for = waits_for

    def __await__(self) -> Generator[Any, Any, None]:
        steps, waits_for = self._steps, self._waits_for
        while True:
            try:
                yield waits_for
            except BaseException as error:
                if not hasattr(steps, "throw"):
                    raise
                thrown: BaseException | None = error
            else:
                thrown = None
            try:
                waits_for = next(steps) if thrown is None else steps.throw(thrown)
            except StopIteration:
                return
