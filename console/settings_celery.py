"""Celery: Redis where there is one, otherwise a broker made of files that needs no service."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

_data_dir = Path(
    os.environ.get("CONSOLE_DATA_DIR") or Path(__file__).resolve().parent.parent / "var"
).absolute()
_redis_url = os.environ.get("REDIS_URL", "")

CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TIMEZONE = "UTC"
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
# The timer sleeps so long at a time (seconds), also when the worker is asked to stop.
CELERY_WORKER_TIMER_PRECISION = 0.2
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = True

if _redis_url:
    CELERY_BROKER_URL = _redis_url
    CELERY_TASK_ACKS_LATE = True
    CELERY_TASK_REJECT_ON_WORKER_LOST = True
else:
    _broker = _data_dir / "broker"
    CELERY_BROKER_URL = "filesystem://"
    CELERY_BROKER_TRANSPORT_OPTIONS = {
        "data_folder_in": str(_broker / "queue"),
        "data_folder_out": str(_broker / "queue"),
        "processed_folder": str(_broker / "processed"),
        "control_folder": str(_broker / "control"),
        "store_processed": False,
    }

CELERY_BEAT_SCHEDULE_FILENAME = str(_data_dir / "celerybeat-schedule")
CELERY_BEAT_SCHEDULE = {
    "book journals that nobody reads": {"task": "usage.ingest_orphans", "schedule": timedelta(seconds=15)},
    "keep the score of readiness": {"task": "readiness.keep", "schedule": timedelta(hours=6)},
    "carry over what periods left": {"task": "budgets.carry_over", "schedule": timedelta(seconds=30)},
    "send exports that are due": {"task": "usage.send_exports", "schedule": timedelta(minutes=2)},
    "ask providers for their figures": {
        "task": "usage.fetch_statements",
        "schedule": timedelta(minutes=10),
    },
    # An alert is to be there within 30 s of its condition: what was booked is looked at every 10.
    "look at the rules of alerts": {"task": "alerts.evaluate", "schedule": timedelta(seconds=10)},
    # What is new is sent at once; this is for what is due later, and for what could not be sent.
    "tell of incidents": {"task": "alerts.deliver", "schedule": timedelta(seconds=10)},
    "tell of crossed thresholds": {"task": "budgets.send_notices", "schedule": timedelta(seconds=15)},
    "end raises of budgets": {"task": "budgets.end_raises", "schedule": timedelta(seconds=30)},
    "close requests that ran out": {"task": "approvals.expire", "schedule": timedelta(seconds=60)},
    "tell of what waits for approval": {"task": "approvals.tell", "schedule": timedelta(seconds=10)},
    "look after actions of tools": {"task": "tools.look_after", "schedule": timedelta(seconds=5)},
    "look after runs": {"task": "runs.look_after", "schedule": timedelta(seconds=3)},
    "forget texts of old runs": {"task": "runs.forget_old", "schedule": timedelta(minutes=30)},
    "reap leases": {"task": "budgets.reap_leases", "schedule": timedelta(seconds=30)},
    "remove texts of calls past their retention": {
        "task": "usage.remove_kept_texts",
        "schedule": timedelta(hours=1),
    },
    "remove what datasets copied of such texts": {
        "task": "evals.remove_copied_texts",
        "schedule": timedelta(hours=1),
    },
    "remove calls past their retention": {"task": "usage.apply_retention", "schedule": timedelta(hours=1)},
    "forget rollups by minute": {"task": "usage.forget_minutes", "schedule": timedelta(hours=1)},
    "make summaries of what was booked": {"task": "usage.renew_summaries", "schedule": timedelta(seconds=20)},
    "make summaries of the last days anew": {
        "task": "usage.recheck_summaries",
        "schedule": timedelta(hours=24),
    },
    "make tables for the days to come": {"task": "usage.make_days", "schedule": timedelta(hours=1)},
    "forget what providers keep no longer": {
        "task": "usage.forget_objects",
        "schedule": timedelta(hours=1),
    },
    "forget old events of breakers and provider keys": {
        "task": "providers.forget_old_events",
        "schedule": timedelta(hours=1),
    },
    # A refusal of a new key sends it at once; this is for what drains, and for what was not sent.
    "tend rotations of provider keys": {
        "task": "providers.tend_rotations",
        "schedule": timedelta(seconds=15),
    },
    "go on with sealing anew": {"task": "access.resume_resealings", "schedule": timedelta(seconds=30)},
    "go on with verifying the trail": {
        "task": "audit.resume_verifications",
        "schedule": timedelta(seconds=30),
    },
    "remind of old secrets that end soon": {
        "task": "access.remind_of_graces",
        "schedule": timedelta(minutes=5),
    },
    "remind of provider keys that are due": {
        "task": "providers.remind_of_keys",
        "schedule": timedelta(hours=1),
    },
    "forget what was tried in the playground": {
        "task": "playground.forget_old",
        "schedule": timedelta(minutes=30),
    },
    "resume jobs whose worker died": {"task": "usage.resume_jobs", "schedule": timedelta(seconds=30)},
}
