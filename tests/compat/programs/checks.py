"""What the programs share: each runs its checks in turn and prints a line of JSON about each.

The programs run in an environment of their own (``fetched.py``), where nothing of this repository can be imported but what
lies beside them.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

_over = "chat"


def over_responses() -> bool:
    """Whether the checks run over the Responses API at this moment, or over chat completions."""
    return _over == "responses"


def run(*checks: Callable[[], Any]) -> None:
    """Over each API that the command line names, in a process of its own: loading a library takes longer than its checks."""
    global _over
    for _over in sys.argv[1:]:
        if not (child := os.fork()):
            _run(*checks)
            os._exit(0)
        if status := os.waitpid(child, 0)[1]:
            sys.exit(f"the checks over {_over} ended with status {os.waitstatus_to_exitcode(status)}")


def _run(*checks: Callable[[], Any]) -> None:
    for check in checks:
        said = ""
        try:
            found = check()
            if inspect.isawaitable(found):
                asyncio.run(_awaited(found))
        except Exception:
            said = traceback.format_exc()[-1_500:]
        print(json.dumps({"check": f"{_over}.{check.__name__}", "said": said}), flush=True)


async def _awaited(found: Any) -> None:
    await asyncio.wait_for(found, 30)


def raises(kind: type[BaseException], call: Callable[[], Any]) -> Any:
    """The error of ``kind`` that ``call`` raises, itself or as its cause."""
    try:
        call()
    except Exception as error:
        found: BaseException | None = error
        while found is not None:
            if isinstance(found, kind):
                return found
            found = found.__cause__ or found.__context__
        raise AssertionError(f"{type(error).__name__} instead of {kind.__name__}: {error}") from error
    raise AssertionError(f"nothing was raised instead of {kind.__name__}")
