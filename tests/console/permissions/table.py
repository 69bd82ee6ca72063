"""Who may do what, as a table: method, address, and what each of the cast gets.

Every address that the resolver knows has a row; one without fails. ``+`` it works (or, for a probe of a key that does
not work, the page says so), ``-`` refused (403), ``0`` not there for them (404), ``1`` asked to identify (401), ``L`` sent
to sign in, ``b`` refused as a value (400: another project's name is as unknown as none), ``f`` refused on the form.

The rows follow from ``llmops/access/rules.py``: change that, and the difference is seen here.
"""

from __future__ import annotations

from tests.console.permissions import admin_governing, admin_serving, api, pages


def read(*tables: str) -> dict[str, str]:
    """The key of each row, such as ``GET /api/v1/runs/``, and its codes."""
    rows = [line.rsplit(maxsplit=1) for table in tables for line in table.strip().splitlines()]
    found = {key.strip(): codes for key, codes in rows}
    assert len(found) == len(rows), "an address has two rows"
    return found


API_ROWS = read(api.API)
PAGE_ROWS = read(admin_governing.GOVERNING, admin_serving.SERVING, pages.PAGES)
