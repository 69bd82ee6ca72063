"""The declarative file: one YAML text that says what is configured.

``shape`` says what may be in it, ``schema`` reads it (pure, every problem with its line), ``state`` reads the database in
the same words, ``plan`` compares the two (pure), ``apply`` carries a plan out through the services of each app, ``export``
writes the file of a state.
"""

from console.declarative.apply import Applied, apply_text
from console.declarative.checks import BadFile

__all__ = ["Applied", "BadFile", "apply_text"]
