"""The objects that a process knows by itself, as many as are worth it."""

from __future__ import annotations

from collections import OrderedDict

from llmops.gateway.kept.owners import Owner


class Memory:
    """The objects that were used last, by (project, id)."""

    __slots__ = ("_known", "_most", "_projects")

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: OrderedDict[tuple[str, str], Owner] = OrderedDict()
        #: id -> the projects of which an object with this id is known
        self._projects: dict[str, set[str]] = {}

    def get(self, project: str, object_id: str) -> Owner | None:
        known = self._known.get((project, object_id))
        if known is not None:
            self._known.move_to_end((project, object_id))
        return known

    def all_of(self, object_id: str) -> list[Owner]:
        """The objects of whatever projects with this id."""
        return [self._known[project, object_id] for project in self._projects.get(object_id, ())]

    def add(self, owner: Owner) -> None:
        place = (owner.project, owner.id)
        self._known[place] = owner
        self._known.move_to_end(place)
        self._projects.setdefault(owner.id, set()).add(owner.project)
        if len(self._known) > self._most:
            (project, object_id), _ = self._known.popitem(last=False)
            projects = self._projects[object_id]
            projects.discard(project)
            if not projects:
                del self._projects[object_id]
