"""Ways of carrying an action out. One is a file here, a line in ``EXECUTORS`` and a test."""

from __future__ import annotations

from django.utils.module_loading import import_string

from llmops.core.errors import InvalidRequest
from llmops.tools.executors.base import Executor, Job, Outcome

__all__ = ["EXECUTORS", "Executor", "Job", "Outcome", "executor_named"]

EXECUTORS = {
    "webhook": "llmops.tools.executors.webhook.WEBHOOK",
    "python": "llmops.tools.executors.python.PYTHON",
}


def executor_named(name: str) -> Executor:
    """Raises ``InvalidRequest`` for one that there is not."""
    if name not in EXECUTORS:
        raise InvalidRequest(
            f"definition.executor: {name!r} is none. Executors are {', '.join(EXECUTORS)}.",
            param="definition.executor",
        )
    found: Executor = import_string(EXECUTORS[name])
    return found
