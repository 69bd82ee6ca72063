"""Who acts. Every change names an actor; its name is kept as text, so that the trail outlives the account."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

ActorKind = Literal["user", "service_key", "command", "job", "system"]


@dataclass(frozen=True, slots=True)
class Actor:
    """``identifier`` is the account's or key's primary key as text; what follows ``name`` is empty off the web.

    ``agent`` is the browser or program as it calls itself; ``session`` names a session on record (never its secret key).
    """

    kind: ActorKind
    identifier: str
    name: str
    ip: str = ""
    request_id: str = ""
    agent: str = ""
    session: str = ""

    def from_request(self, *, ip: str, request_id: str, agent: str = "", session: str = "") -> Actor:
        return replace(self, ip=ip, request_id=request_id, agent=agent, session=session)


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
