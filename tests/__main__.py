"""``python -m tests``: the whole suite on SQLite, and on PostgreSQL and Valkey whatever meets a database or Redis.

One run does both, because every second test waits and the other half can work. Arguments go to pytest.
"""

from __future__ import annotations

import sys

import pytest


def main(arguments: list[str]) -> int:
    return int(pytest.main(["--backend", "both", "--forks", "auto", *arguments]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
