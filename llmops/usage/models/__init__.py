"""What was called and what it cost: calls, journals, rollups. Durations are microseconds, amounts nanodollars."""

from llmops.usage.models.calls import Call, Journal, RetentionMark
from llmops.usage.models.corrections import Correction
from llmops.usage.models.exports import ExportRun, ExportSchedule
from llmops.usage.models.outcomes import CallOutcome, OutcomeKind, OutcomeRollup
from llmops.usage.models.replays import Replay
from llmops.usage.models.rollups import AttributionRollup, LatencyRollup, PromptRollup, Rollup
from llmops.usage.models.sources import StatementSource
from llmops.usage.models.statements import DriftAlert, ProviderFigure, ProviderImport
from llmops.usage.models.summaries import ORGANISATION, StaleSummary, Summary
from llmops.usage.models.texts import KeptAnswer, KeptText
from llmops.usage.models.work import Job, KeptItem, KeptObject

__all__ = [
    "ORGANISATION",
    "AttributionRollup",
    "Call",
    "CallOutcome",
    "Correction",
    "DriftAlert",
    "ExportRun",
    "ExportSchedule",
    "Job",
    "Journal",
    "KeptAnswer",
    "KeptItem",
    "KeptObject",
    "KeptText",
    "LatencyRollup",
    "OutcomeKind",
    "OutcomeRollup",
    "PromptRollup",
    "ProviderFigure",
    "ProviderImport",
    "Replay",
    "RetentionMark",
    "Rollup",
    "StaleSummary",
    "StatementSource",
    "Summary",
]
