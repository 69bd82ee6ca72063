"""What finance takes away: calls, spend and FOCUS as CSV, a chunk at a time, however many rows there are.

Rows come by keyset, a few thousand a query, so that neither a cursor nor a transaction stays open while somebody's
connection is slow. An export whose range lies in the past is the same whenever it is made, but for outcomes and corrections
that were told since.
"""

from llmops.usage.exports.kinds import CALLS, FOCUS, KINDS, SPEND, Export, Wanted, export

__all__ = ["CALLS", "FOCUS", "KINDS", "SPEND", "Export", "Wanted", "export"]
