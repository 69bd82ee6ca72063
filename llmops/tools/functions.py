"""Python functions that come with the console and that tools may run. ``settings.TOOL_FUNCTIONS`` names them.

A function takes the arguments and the job around them, and returns what can be written as JSON. What it raises fails the
action with the error's name; a ``ConsoleError`` with its message.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmops.tools.executors.base import Job


def echo(arguments: Mapping[str, Any], job: Job) -> dict[str, Any]:
    """Does nothing and says what it was given, to try a tool out."""
    return {"echo": dict(arguments)}
