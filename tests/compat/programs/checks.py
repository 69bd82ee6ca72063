"""What the programs share: each runs its checks in turn and prints a line of JSON about each.

The programs run in an environment of their own (``fetched.py``), where nothing of this repository can be imported but what
lies beside them.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import traceback
from collections.abc import Callable
from typing import Any


def run(*checks: Callable[[], Any]) -> None:
    for check in checks:
        said = ""
        try:
            found = check()
            if inspect.isawaitable(found):
                asyncio.run(_awaited(found))
        except Exception:
            said = traceback.format_exc()[-1_500:]
        print(json.dumps({"check": check.__name__, "said": said}), flush=True)


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
