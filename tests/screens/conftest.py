from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("console").addoption(
        "--remake", action="store_true", help="tests/screens: keep what is shown now as what is to be shown"
    )
