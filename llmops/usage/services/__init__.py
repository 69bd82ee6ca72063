"""What changes usage: journals that open, jobs that people ask for, calls past their retention."""

from llmops.usage.services.corrections import correct_call
from llmops.usage.services.fetching import FETCH, fetch_daily, request_fetch, set_source
from llmops.usage.services.jobs import REBUILD, request_rebuild, resume_jobs, run_job
from llmops.usage.services.journals import (
    ROLLUPS_LOCK,
    booked_records,
    journal_closed,
    mark_lost,
    open_journal,
)
from llmops.usage.services.minutes import forget_minutes
from llmops.usage.services.objects import forget_objects
from llmops.usage.services.outcomes import Told, forget_outcomes, report_outcomes
from llmops.usage.services.retention import apply_retention, remove_kept_texts
from llmops.usage.services.schedules import (
    create_schedule,
    schedule_problems,
    send_again,
    send_exports,
    send_now,
    stop_schedule,
)
from llmops.usage.services.statements import alert_in_words, import_statement, tell_of_drift
from llmops.usage.services.summaries import recheck_summaries, renew_summaries

__all__ = [
    "FETCH",
    "REBUILD",
    "ROLLUPS_LOCK",
    "Told",
    "alert_in_words",
    "apply_retention",
    "booked_records",
    "correct_call",
    "create_schedule",
    "fetch_daily",
    "forget_minutes",
    "forget_objects",
    "forget_outcomes",
    "import_statement",
    "journal_closed",
    "mark_lost",
    "open_journal",
    "recheck_summaries",
    "remove_kept_texts",
    "renew_summaries",
    "report_outcomes",
    "request_fetch",
    "request_rebuild",
    "resume_jobs",
    "run_job",
    "schedule_problems",
    "send_again",
    "send_exports",
    "send_now",
    "set_source",
    "stop_schedule",
    "tell_of_drift",
]
