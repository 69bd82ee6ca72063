"""The Reconciliation page: the ledger beside what providers say."""
