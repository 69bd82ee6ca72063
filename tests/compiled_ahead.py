"""Compiles test files before a run loads them, on all cores.

pytest writes what it makes of a test file's asserts beside the file, and finds it there the next time; but a first run
would do so one file after the other, and both halves of the suite begin at the same moment with the same files.
The same holds for the constants of the product's modules and the tables of characters, with which Hypothesis makes its
examples.
"""

from __future__ import annotations

import fcntl
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

_ROOT = Path(__file__).resolve().parent.parent
_PRODUCT = ("console", "llmops")


def compile_ahead(config: pytest.Config, processes: int) -> None:
    """Share the files out among ``processes`` processes and wait for them; nothing depends on whether they succeed.

    Of two runs that begin at once the second waits, and finds all done.
    """
    if sys.dont_write_bytecode:
        return
    turn = os.open(_ROOT / "tests", os.O_RDONLY)
    try:
        fcntl.flock(turn, fcntl.LOCK_EX)
        _share_out(config, processes)
    finally:
        os.close(turn)


def _share_out(config: pytest.Config, processes: int) -> None:
    tests = [path for path in sorted((_ROOT / "tests").rglob("*.py")) if _has_asserts(path)]
    sources = [path for name in _PRODUCT for path in sorted((_ROOT / name).rglob("*.py"))]
    children = []
    for number in range(processes):
        if child := os.fork():
            children.append(child)
            continue
        try:
            _rewrite(config, tests[number::processes])
            _find_constants(sources[number::processes])
            if number == 0:
                _find_characters()
        finally:
            # Whatever this process was to do at its end is its parent's.
            os._exit(0)
    for child in children:
        os.waitpid(child, 0)


def _has_asserts(path: Path) -> bool:
    """Whether pytest rewrites it: test files and ``conftest.py``; what these import is compiled as anything is."""
    return path.name.startswith("test_") or path.name == "conftest.py"


def _rewrite(config: pytest.Config, files: list[Path]) -> None:
    # What pytest itself does when it imports a test file, but for running it.
    from _pytest.assertion import rewrite

    state = config.stash[rewrite.assertstate_key]
    for path in files:
        directory = rewrite.get_cache_dir(path)
        compiled = directory / (path.name[:-3] + rewrite.PYC_TAIL)
        if rewrite._read_pyc(path, compiled) is None and rewrite.try_makedirs(directory):
            of, code = rewrite._rewrite_test(path, config)
            rewrite._write_pyc(state, code, of, compiled)


def _find_constants(files: list[Path]) -> None:
    from hypothesis.internal.constants_ast import constants_from_module

    for path in files:
        module = ModuleType(path.stem)
        module.__file__ = str(path)
        constants_from_module(module)


def _find_characters() -> None:
    """Which there are, of which kind, and those that a text may hold: a second for each process that looks itself."""
    from hypothesis.internal.charmap import charmap, intervals_from_codec

    charmap()
    intervals_from_codec("utf-8")
