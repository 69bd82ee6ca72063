"""Optional packages that libraries load wherever they are installed, and that the console does not use through them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

#: A library's module -> what it is to do without. requests and pygments come with other packages; REST framework takes
#: them for its test client and its browsable pages. Unfold and REST framework take psycopg for fields of PostgreSQL alone,
#: none of which a model of ours has. Together they are 17 MB of every web server and 0.2 s of its start.
OPTIONAL = {
    "rest_framework.compat": ("coreapi", "markdown", "psycopg", "psycopg2", "pygments", "requests"),
    "unfold.overrides": ("psycopg", "psycopg2"),
}


def load_without() -> None:
    """Load these libraries' modules as if what is optional were not installed. Whoever imports it later gets it."""
    for module, names in OPTIONAL.items():
        with omitted(*names):
            import_module(module)


@contextmanager
def omitted(*names: str) -> Iterator[None]:
    """Imports of packages that are not loaded yet fail meanwhile, as they do where the packages are not installed."""
    absent = [name for name in names if name not in sys.modules]
    for name in absent:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]
