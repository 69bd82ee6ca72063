"""Who acts. Every change names an actor; its name is kept as text, so that the trail outlives the account."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

ActorKind = Literal["user", "service_key", "command", "job", "system"]


@dataclass(frozen=True, slots=True)
class Actor:
    """``identifier`` is the account's or key's primary key as text; ``ip`` and ``request_id`` are empty off the web."""

    kind: ActorKind
    identifier: str
    name: str
    ip: str = ""
    request_id: str = ""

    def from_request(self, *, ip: str, request_id: str) -> Actor:
        return replace(self, ip=ip, request_id=request_id)


def command_actor(name: str) -> Actor:
    """The actor of a management command: the operating system's user name goes into the trail."""
    import getpass

    try:
        account = getpass.getuser()
    except (KeyError, OSError):
        account = "unknown"
    return Actor(kind="command", identifier=name, name=f"{account} (manage.py {name})")


def job_actor(name: str) -> Actor:
    return Actor(kind="job", identifier=name, name=f"job {name}")


SYSTEM = Actor(kind="system", identifier="system", name="system")
