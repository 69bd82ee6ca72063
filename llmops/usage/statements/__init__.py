"""What a provider says was used and what it costs: its exports, read. Pure."""

from llmops.usage.statements.reading import BadStatement, Line, Statement, read

__all__ = ["BadStatement", "Line", "Statement", "read"]
