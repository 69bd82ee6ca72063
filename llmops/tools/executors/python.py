"""A Python function of the installation, run in the worker. It is named in ``settings.TOOL_FUNCTIONS`` and nowhere else.

A thread cannot be ended from outside: a function that takes longer than the tool allows goes on, and the outcome is unknown.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from threading import Thread
from typing import Any

from django.conf import settings
from django.db import connections
from django.utils.module_loading import import_string

from llmops.core.digests import canonical_json
from llmops.core.errors import ConsoleError, InvalidRequest
from llmops.tools.executors.base import MOST_RESULT_BYTES, Executor, Job, Outcome, storable, too_deep

log = logging.getLogger(__name__)


def _check(given: Mapping[str, Any]) -> dict[str, Any]:
    name = given.get("function")
    if set(given) != {"function"} or name not in settings.TOOL_FUNCTIONS:
        known = ", ".join(settings.TOOL_FUNCTIONS) or "none"
        raise InvalidRequest(
            f"definition.settings.function: name a function of this installation ({known}).",
            param="definition.settings.function",
        )
    return {"function": name}


def _run(job: Job) -> Outcome:
    try:
        function = import_string(settings.TOOL_FUNCTIONS[job.settings["function"]])
    except (KeyError, ImportError):
        return Outcome(
            "failed", message=f"Nothing was run: there is no function {job.settings.get('function')!r} here."
        )
    found: list[Outcome] = []

    def work() -> None:
        try:
            found.append(_ended(function(job.arguments, job)))
        except ConsoleError as refused:
            found.append(Outcome("failed", message=refused.message[:900]))
        except Exception as failed:
            log.exception("The function of the tool %s failed", job.tool)
            # It may have done half of its work.
            found.append(Outcome("unknown", message=f"The function ended with {type(failed).__name__}."))
        finally:
            connections.close_all()

    thread = Thread(target=work, name=f"tool {job.tool}", daemon=True)
    thread.start()
    thread.join(job.timeout_s)
    return (
        found[0]
        if found
        else Outcome("unknown", message=f"The function did not end within {job.timeout_s:g} s.")
    )


def _ended(value: Any) -> Outcome:
    try:
        size = len(canonical_json(value))
    except (TypeError, ValueError, RecursionError):
        return Outcome("succeeded", message="The function returned what cannot be written as JSON.")
    if size > MOST_RESULT_BYTES:
        return Outcome(
            "succeeded",
            message=f"The function returned {size} bytes; at most {MOST_RESULT_BYTES} are kept.",
        )
    if too_deep(value):
        return Outcome("succeeded", message="The function returned what is nested too deeply to be kept.")
    return Outcome("succeeded", storable(value))


def _end(settings: Mapping[str, Any]) -> str:
    return str(settings["function"])


PYTHON = Executor("python", "A function of this installation", _check, _run, _end, "function", shared=True)
