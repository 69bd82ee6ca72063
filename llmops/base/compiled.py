"""Compiled queries: the ORM makes their SQL once in a process, and each run binds its own values.

For aggregates over many columns that run again and again: the ORM takes several times as long to put one into SQL as the
database takes to answer it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from django.db import connection
from django.db.models import Expression, Field, QuerySet


class Parameter(Expression):
    """Stands in a ``CompiledQuery`` for a value of this kind, which each run gives by this name."""

    def __init__(self, name: str, output_field: Field[Any, Any]) -> None:
        super().__init__(output_field=output_field)
        self.name = name

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, Any]:
        return "%s", (self,)

    def bound(self, value: Any) -> Any:
        return self.output_field.get_db_prep_value(value, connection)


@dataclass(frozen=True, slots=True)
class _Statement:
    query: Any
    sql: str
    params: tuple[Any, ...]
    columns: tuple[Any, ...]


class CompiledQuery:
    """What ``make`` builds with ``values_list``, its conditions with a ``Parameter`` wherever runs differ.

    It is built when it is run for the first time on an engine. Conditions on lists do not fit, because their SQL depends on
    how many values there are.
    """

    def __init__(self, make: Callable[[], QuerySet[Any, Any]]) -> None:
        self._make = make
        self._made: dict[str, _Statement] = {}

    def rows(self, **values: Any) -> Iterator[tuple[Any, ...]]:
        """The rows as the ORM gives them; all are read before the first. Raises ``KeyError`` for a value that is missing."""
        statement = self._made.get(connection.vendor) or self._compile()
        bound = [
            param.bound(values[param.name]) if isinstance(param, Parameter) else param
            for param in statement.params
        ]
        with connection.cursor() as cursor:
            cursor.execute(statement.sql, bound)
            found = cursor.fetchall()
        compiler = statement.query.get_compiler(connection=connection)
        converters = compiler.get_converters(statement.columns)
        return map(tuple, compiler.apply_converters(found, converters)) if converters else iter(found)

    def _compile(self) -> _Statement:
        query: Any = self._make().query
        compiler = query.get_compiler(connection=connection)
        sql, params = compiler.as_sql()
        columns = tuple(column for column, *_ in compiler.select[: compiler.col_count])
        made = self._made[connection.vendor] = _Statement(query, sql, tuple(params), columns)
        return made
