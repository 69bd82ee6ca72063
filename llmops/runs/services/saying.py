"""What the model says while it says it: for whoever follows a run of the mode ``stream``, beside its steps.

Nothing is lost with it: the step of the turn has the whole text, and what goes on from there goes on from the steps. In this process the
text is heard at once; others see it in the run's row, some times a second, sealed as all texts are.
"""

from __future__ import annotations

import logging
import time
from uuid import UUID

from django.db import DatabaseError, InterfaceError

from llmops.runs.conversation import whole
from llmops.runs.models import Run
from llmops.runs.sealed import saying_identity, seal
from llmops.runs.services.leasing import Held

log = logging.getLogger(__name__)

#: Written down so often at most, and no more of it: a longer text comes with its step.
_EVERY_S, MOST_CHARACTERS = 0.4, 64 * 1024
#: Of the runs that this process works on: the turn and its text so far.
HERE: dict[UUID, tuple[int, str]] = {}


class Saying:
    """The text of one turn as it comes. To be closed."""

    def __init__(self, held: Held, turn: int) -> None:
        self._run, self._turn = held.run, turn
        self._text = ""
        self._next = time.monotonic()

    def heard(self, piece: str) -> None:
        if len(self._text) >= MOST_CHARACTERS:
            return
        self._text = whole(self._text + piece)[:MOST_CHARACTERS]
        HERE[self._run.pk] = (self._turn, self._text)
        if time.monotonic() >= self._next:
            self._write()
            self._next = time.monotonic() + _EVERY_S

    def close(self) -> None:
        HERE.pop(self._run.pk, None)

    def _write(self) -> None:
        run = self._run
        told = {"turn": self._turn, "text": self._text}
        mine = Run.objects.filter(pk=run.pk, fence=run.fence, state=Run.RUNNING)
        try:
            mine.update(sealed_saying=seal(told, identity=saying_identity(run.pk)))
        except (DatabaseError, InterfaceError) as error:
            # What is said is written down again with the step; nobody has to wait for it here.
            log.warning("what the run %s says is not told to other processes: %s", run.pk, error)
