"""The kinds of acts that take a second person. A kind is a ``Kind`` in the room that carries it out, and a line in
``settings.APPROVAL_KINDS``: those rooms lie above this one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.conf import settings
from django.utils.module_loading import import_string

from llmops.core.actors import Actor
from llmops.core.errors import InvalidRequest

if TYPE_CHECKING:
    from llmops.approvals.models import Request


@dataclass(frozen=True, slots=True)
class Kind:
    """``permission`` says who may decide (in the request's project), ``required`` how many must agree; ``asks`` who may
    ask, and must still when it is approved (empty: nobody looks). ``views`` says what looking at such a request takes instead of
    ``approval.view``: its content is for fewer eyes (empty: it is not).

    ``describe`` tells a person what exactly would be done, as (label, text). ``execute`` does it, inside the transaction of the
    last approval: it changes the database and nothing else, and raises what speaks against it by then, which leaves the request
    open. It gets the approver, the request's id and its content, and returns what is to be kept as the result. It records no
    audit event: the approval's own tells everything.

    ``objects`` may name why somebody must not decide, beside asking for it oneself (empty: nothing does). ``ended`` hears, in the
    same transaction, that a request was rejected, taken back or ran out. ``revise`` puts another act in place of one that waits,
    with other arguments, and returns its request (None: nobody need approve that).

    ``void`` says why what was asked for cannot be what is done any more (empty: it can); such a request ends when somebody would
    approve it. ``template`` shows more of it than words on the pages that decide, with what ``facts`` gives.
    """

    name: str
    permission: str
    describe: Callable[[Mapping[str, Any]], list[tuple[str, str]]]
    execute: Callable[[Actor, UUID, Mapping[str, Any]], dict[str, Any]]
    asks: str = ""
    views: str = ""
    required: int = 1
    lifetime: timedelta = timedelta(days=7)
    objects: Callable[[Actor, Mapping[str, Any]], str] | None = None
    ended: Callable[[Mapping[str, Any], str], None] | None = None
    revise: Callable[[Actor, Mapping[str, Any], Mapping[str, Any], str], Request | None] | None = None
    void: Callable[[Mapping[str, Any]], str] | None = None
    template: str = ""
    facts: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None


def kinds_for_fewer() -> dict[str, str]:
    """Kinds that take a permission of their own to look at, with it."""
    found = {name: kind_named(name).views for name in settings.APPROVAL_KINDS}
    return {name: permission for name, permission in found.items() if permission}


def kind_named(name: str) -> Kind:
    """Raises ``InvalidRequest`` for a kind that no room offers (any more)."""
    found = settings.APPROVAL_KINDS.get(name)
    if found is None:
        raise InvalidRequest(
            f"kind: {name!r} is nothing that can be asked for. Kinds are {', '.join(settings.APPROVAL_KINDS)}.",
            param="kind",
        )
    kind: Kind = import_string(found)
    return kind
