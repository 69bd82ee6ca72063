"""Environment variables whose bad values become a sentence that names the variable (invariant 11)."""

from __future__ import annotations

from typing import Any

import environ
from django.core.exceptions import ImproperlyConfigured

_FALSE = frozenset({"", "0", "false", "off", "no", "n"})


class Environment(environ.Env):
    def get_value(self, var: Any, cast: Any = None, default: Any = environ.Env.NOTSET, **kwargs: Any) -> Any:
        try:
            return super().get_value(var, cast=cast, default=default, **kwargs)
        except ValueError:
            wanted = {int: "a whole number"}.get(cast, "another kind of value")
            raise ImproperlyConfigured(f"{var} is {self.ENVIRON.get(var)!r}; it must be {wanted}.") from None

    def bool(self, var: Any, default: Any = environ.Env.NOTSET) -> Any:
        """Like environ's, except that what is neither yes nor no is refused; environ would take it for no."""
        given = str(self.ENVIRON.get(var, "")).strip().lower()
        if given not in _FALSE and given not in self.BOOLEAN_TRUE_STRINGS:
            raise ImproperlyConfigured(f"{var} is {given!r}; it must be true or false.")
        return bool(super().bool(var, default=default))
