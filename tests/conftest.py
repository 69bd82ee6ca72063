"""Fixtures that every test may use: databases that come back clean, and whole installations."""

from __future__ import annotations

import functools
import gc
import os
import re
import shutil
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import cache
from hypothesis import settings
from pytest_django.plugin import blocking_manager_key

from tests import backends, handing_on, kept, pristine, trying
from tests.installation import (
    installation,
    installation_template,
    living_installations,
    module_installation,
)
from tests.templates import Template

__all__ = [
    "installation",
    "installation_template",
    "module_installation",
    "pytest_runtest_makereport",
]


# Unless --hypothesis-profile says otherwise, which is looked at later.
settings.load_profile(trying.DEFAULT)

#: What always meets the embedded database: the same on every backend, so it runs once, with the first.
_EMBEDDED = (
    "compat/",
    "e2e/test_embedded.py",
    "e2e/test_browser.py",
    "e2e/test_fuzz_wire.py",
)
#: Whoever asks for one of these meets the backend's database or Redis; what asks for none runs once as well.
_BACKEND_FIXTURES = frozenset(
    ("db", "transactional_db", "django_db_setup", "installation", "module_installation", "live_server")
)

#: What takes longest, by itself or because it installs something on the first run. In this order.
_LONG = (
    "compat/",
    "e2e/test_embedded.py",
    "e2e/test_vanishing_journals.py",
    "e2e/test_browser.py",
    "gateway/test_start_and_stop.py",
    "e2e/",
    "accessibility/",
    "console/test_permissions.py",
    "console/",
    "core/test_tokens_ranks.py",
    "usage/test_ingest_processes.py",
    "usage/test_usage_jobs.py",
    "toolchain/test_installations.py",
    "gateway/test_pricing.py",
    "gateway/faults/",
    "apply/",
    "budgets/test_budget_machine.py",
    "policies/",
    "access/",
)


#: On a test: what it leaves in its directory is of use.
_FAILED = pytest.StashKey[bool]()


def _runs_once(item: pytest.Item) -> bool:
    if item.get_closest_marker("any_engine") is not None:
        return True
    if item.path.relative_to(Path(__file__).parent).as_posix().startswith(_EMBEDDED):
        return True
    asked = getattr(item, "fixturenames", ())
    return item.get_closest_marker("django_db") is None and _BACKEND_FIXTURES.isdisjoint(asked)


def _keeps_others_waiting(item: pytest.Item) -> bool:
    """Whether it commits: what is asked then is how locks and connections get along, which each engine answers itself."""
    database = item.get_closest_marker("django_db")
    return "transactional_db" in getattr(item, "fixturenames", ()) or (
        database is not None and bool(database.kwargs.get("transaction"))
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("any_engine") is not None and _keeps_others_waiting(item):
            raise pytest.UsageError(
                f"{item.nodeid} commits, so it runs on every engine: take any_engine off it."
            )
    backend = config.getoption("backend")
    if backend == backends.BOTH:
        for item in items:
            item.stash[backends.MEETS] = backends.BACKENDS[:1] if _runs_once(item) else backends.BACKENDS
    elif backend != "sqlite":
        once = [item for item in items if _runs_once(item)]
        # Whoever names such a file means it.
        if once and len(once) < len(items):
            config.hook.pytest_deselected(items=once)
            items[:] = [item for item in items if item not in set(once)]
    if config.getoption("forks") is not None:
        items.sort(key=_turn)


def pytest_collection_finish(session: pytest.Session) -> None:
    """What is loaded by now stays to the end: the collector need not look through it again and again."""
    if session.config.getoption("forks") is None:
        trying.share_out(session.config.getoption("backend"))
    gc.collect()
    gc.freeze()


def _turn(item: pytest.Item) -> int:
    """In which turn of a parallel run: a long file that came last would keep one process busy and the others waiting."""
    place = item.path.relative_to(Path(__file__).parent).as_posix()
    return next((turn for turn, name in enumerate(_LONG) if place.startswith(name)), len(_LONG))


@pytest.fixture(scope="session")
def django_db_modify_db_settings(
    django_db_modify_db_settings_parallel_suffix: None, installation_template: Template
) -> None:
    """The tests' own database is a copy of the migrated one as well.

    A file in place of Django's in-memory database: threads and real locks then meet what production has.
    """
    from django.conf import settings
    from django.db import connection

    database = settings.DATABASES["default"]
    if connection.vendor == "sqlite":
        database["TEST"]["NAME"] = str(Path(os.environ["CONSOLE_DATA_DIR"]) / "test.sqlite3")
    installation_template.fill(connection.creation._get_test_db_name())


@pytest.fixture(scope="session")
def django_db_setup(
    django_test_environment: None,
    django_db_modify_db_settings: None,
    django_db_blocker: object,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[None]:
    """The database is there, migrated, and comes back clean; the server or the directory goes away with it.

    pytest-django's own has Django look at all migrations and models again, which each process of a run would wait for.
    The flush after transactional tests is replaced, because append-only tables refuse it.
    """
    from django.conf import settings
    from django.db import connection
    from django.test import TransactionTestCase

    directory = tmp_path_factory.mktemp("pristine")
    with django_db_blocker.unblock():  # type: ignore[attr-defined]
        name = connection.creation._get_test_db_name()
        connection.close()
        settings.DATABASES["default"]["NAME"] = connection.settings_dict["NAME"] = name
        restore = {"default": pristine.remember("default", directory=directory)}

    def bring_back(case: TransactionTestCase) -> None:
        for alias in case._databases_names(include_mirrors=False):  # type: ignore[attr-defined]
            restore[alias]()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransactionTestCase, "_fixture_teardown", bring_back)
        yield


@pytest.fixture
def _django_db_helper(request: pytest.FixtureRequest, django_db_setup: None, django_db_blocker: Any) -> None:
    """pytest-django's, over what is kept for several tests."""
    with django_db_blocker.unblock():
        kept.begin(request.node)
    request.getfixturevalue("_django_db_helper")


@pytest.fixture(scope="session", autouse=True)
def static_files_found_once() -> Iterator[None]:
    """Every test client makes the middleware anew, which would look through all static files each time.

    A process of the product does so once, and takes longer over it than over the rest of an ordinary test.
    """
    from whitenoise.middleware import WhiteNoiseMiddleware

    look = WhiteNoiseMiddleware.add_files_from_finders
    found: dict[tuple[object, ...], dict[str, object]] = {}

    def look_once(self: WhiteNoiseMiddleware) -> None:
        asked = (self.static_prefix, self.max_age, self.charset, self.allow_all_origins)
        if asked not in found:
            look(self)
            found[asked] = self.files
        self.files = dict(found[asked])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WhiteNoiseMiddleware, "add_files_from_finders", look_once)
        yield


@pytest.fixture(scope="session", autouse=True)
def pages_told_of_alone(django_test_environment: None) -> Iterator[None]:
    """The test client keeps the context of a page (``answer.context``), and not of each of its hundred parts as well.

    It copies every context that it is told of, which takes a twentieth of the time of a page.
    """
    from django.template import Context, Template
    from django.test.signals import template_rendered
    from django.utils.safestring import SafeString

    def render(self: Template, context: Context) -> SafeString:
        # Parents and included parts are rendered in the context that belongs to the page.
        if context.template is self:
            template_rendered.send(sender=self, template=self, context=context)
        return self.nodelist.render(context)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Template, "_render", render)
        yield


@pytest.fixture(scope="session", autouse=True)
def certificates_read_once() -> Iterator[None]:
    """Every client of the SDK reads the system's certificates, which takes longer than its calls, none of which meets TLS."""
    import httpcore2

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(httpcore2, "default_ssl_context", functools.cache(httpcore2.default_ssl_context))
        yield


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """As pytest's, which looks through all directories that are there and moves a link to the newest one each time."""
    name = re.sub(r"\W", "_", request.node.name)[:22]
    path = Path(tempfile.mkdtemp(prefix=f"{name}_", dir=tmp_path_factory.getbasetemp()))
    yield path
    if not request.node.stash.get(_FAILED, False):
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(autouse=True)
def nothing_cached(request: pytest.FixtureRequest) -> None:
    """Every test starts with an empty cache and, where there is one, an empty Redis database."""
    cache.clear()
    if url := os.environ.get("REDIS_URL"):
        _redis(url).flushdb()


@functools.cache
def _redis(url: str) -> Any:
    """Connects when first asked; a connection for each test takes longer than the question."""
    import redis

    return redis.Redis.from_url(url)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, object, object]:
    item.session.stash[handing_on.FOLLOWING] = nextitem
    try:
        return (yield)
    finally:
        kept.end(item, nextitem, item.config.stash[blocking_manager_key])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.stash[_FAILED] = True
        for found in living_installations():
            report.sections.extend(
                (f"log of {process.name}", process.log_tail()) for process in found.processes
            )
    return report
