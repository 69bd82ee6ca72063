"""What launchers of the product's own processes have loaded beforehand: Django, set up, and the apps of the product.

Half of what is left of a start is this, and it is the same for every installation: an app and what it loads read no setting
that one installation is told and another is not. It is loaded under settings of no installation, which are forgotten; a
launched process reads its own when it first asks for one, at the moment and with the refusals of any other start. A process
that would have loaded otherwise, because a setting differs that was read here, ends and says so: start it anew.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import re
import sys
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from manage import ABOUT_EVERY_APP

ROOT = Path(__file__).resolve().parents[2]
#: Those that serve no pages, and those that do: they have other apps installed.
BACKGROUND, PAGES = KINDS = ("background", "pages")
SETTINGS = "console.settings"
#: The directory of no installation: whoever keeps a path that was made of it finds nothing there.
NOWHERE = "/nowhere/of-no-installation"
#: Modules that are run and set Django up, and what code says that does so.
_MODULES = ("celery", "console.asgi_embedded", "granian")
_SETS_UP = re.compile(r"\bdjango\.setup\(\)|\bmanage\.main\(\)|\bconsole\.(asgi|celery)")
_TRUE = ("1", "true", "on", "yes", "y", "ok")
#: What processes load of their own when they start, besides tasks and commands.
_LOADED = (
    "llmops.gateway.boot",
    "console.declarative",
    "console.file_broker",
    "console.prepared",
    "console.startup",
)
_PAGES = ("console.urls",)


def kind(words: Sequence[str], env: Mapping[str, str]) -> str:
    """Which of ``KINDS`` a command of the product is, or nothing: something else, or told of other settings."""
    how, what = words[1], words[2] if len(words) > 2 else ""
    if env.get("DJANGO_SETTINGS_MODULE", SETTINGS) != SETTINGS or env.get("CONSOLE_DEBUG"):
        # Packages look at the latter while they are loaded.
        return ""
    if not (
        (how == "-m" and what in _MODULES)
        or (how == "-c" and _SETS_UP.search(what))
        or Path(how).name == "manage.py"
    ):
        return ""
    told = env.get("CONSOLE_BACKGROUND")
    if how not in ("-c", "-m") and what in ABOUT_EVERY_APP:
        told = None
    elif told is None and any("console.asgi_gateway" in word for word in words):
        told = "1"
    return BACKGROUND if (told or "").strip().lower() in _TRUE else PAGES


def read_settings_of_none(of: str) -> None:
    """Before anything is loaded, in the process that is to load it."""
    kept = dict(os.environ)
    for name in kept:
        if name.startswith(("CONSOLE_", "DATABASE_URL", "REDIS_URL")):
            del os.environ[name]
    os.environ |= {
        "DJANGO_SETTINGS_MODULE": SETTINGS,
        "CONSOLE_BACKGROUND": "1" if of == BACKGROUND else "",
        "CONSOLE_DATA_DIR": NOWHERE,
        # One that exists, since it would be made.
        "CONSOLE_STATIC_ROOT": str(ROOT / "static"),
    }
    from django.conf import settings

    # Asked for anything, it reads all. The keys are missing, so whoever asks for one is refused.
    assert settings.INSTALLED_APPS
    os.environ.clear()
    os.environ.update(kept)


def load(of: str) -> None:
    from django.apps import apps
    from django.conf import settings
    from django.db.migrations.loader import MigrationLoader

    apps.populate(settings.INSTALLED_APPS)
    for app in apps.get_app_configs():
        if app.name.startswith(("llmops", "console")):
            _load_of(app.name)
    for name in (*_LOADED, *(_PAGES if of == PAGES else ())):
        importlib.import_module(name)
    # Every process that serves looks whether all of them were applied.
    MigrationLoader(None)


def _load_of(app: str) -> None:
    commands = f"{app}.management.commands"
    for name in (f"{app}.tasks", commands):
        try:
            found = importlib.import_module(name)
        except ModuleNotFoundError as missing:
            if missing.name is None or not name.startswith(missing.name):
                raise
            continue
        if name == commands:
            for one in pkgutil.iter_modules(found.__path__):
                importlib.import_module(f"{commands}.{one.name}")


def forget_settings() -> None:
    """Leaves all that is loaded, and settings that are to be read; to be called once, by the launcher."""
    from django.conf import LazySettings, global_settings, settings
    from django.core.cache import caches
    from django.db import connections
    from django.utils.functional import empty

    given = {*vars(global_settings), *vars(sys.modules[SETTINGS])}
    wrapped = vars(settings)["_wrapped"]
    # What packages fill in where the settings leave it out, and what was asked for; the settings keep what they were asked for.
    filled = {name: value for name, value in vars(wrapped).items() if name.isupper() and name not in given}
    read = {name: value for name, value in vars(settings).items() if name.isupper() and name not in filled}
    for handler in (connections, caches):
        # Neither has connected to anything, but each may know to what it would.
        read.pop(handler.settings_name, None)
        for alias in list(handler.settings):
            if hasattr(handler._connections, alias):
                del handler[alias]
        handler._settings = None  # type: ignore[attr-defined]
        del vars(handler)["settings"]
    for name in [name for name in sys.modules if name.startswith(SETTINGS)]:
        del sys.modules[name]
        package, _, module = name.rpartition(".")
        delattr(sys.modules[package], module)
    # It keeps addresses that it took apart.
    urllib.parse.clear_cache()
    settings._wrapped = empty
    set_up = LazySettings._setup

    def set_up_anew(self: LazySettings, name: str | None = None) -> None:
        set_up(self, name)
        LazySettings._setup = set_up  # type: ignore[method-assign]
        now = vars(self)["_wrapped"]
        for setting, value in filled.items():
            if not hasattr(now, setting):
                setattr(now, setting, value)
        differing = [one for one, value in read.items() if not _same(value, getattr(now, one, None))]
        if differing:
            raise RuntimeError(
                f"What the launcher loaded depends on {', '.join(differing)}: start this process anew"
            )

    LazySettings._setup = set_up_anew  # type: ignore[method-assign]


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if callable(one) and callable(other):
        # Settings are read a second time, so a function of theirs is not the same one.
        return getattr(one, "__qualname__", one) == getattr(other, "__qualname__", other)
    return bool(one == other)
