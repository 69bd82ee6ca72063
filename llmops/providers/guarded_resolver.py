"""``GuardedNames`` for aiohttp's connector.

aiohttp does not ask a resolver about hosts that are addresses already: judge those with ``host_refusal`` first.
"""

from __future__ import annotations

from aiohttp.abc import AbstractResolver

from llmops.providers.guarded_names import AddressRefused, GuardedNames

__all__ = ["AddressRefused", "GuardedResolver"]


class GuardedResolver(GuardedNames, AbstractResolver):
    pass
