"""Changes of the playground: each is one transaction with one audit event. No event holds a text."""

from llmops.playground.services.keys import key_in_use, renew_key
from llmops.playground.services.replays import replay_call
from llmops.playground.services.retention import forget_old
from llmops.playground.services.runs import SILENT_FOR, cancel_run, give_up_lost, start_run, watched
from llmops.playground.services.saving import save_as_sample, save_as_version
from llmops.playground.services.setups import share_setup

__all__ = [
    "SILENT_FOR",
    "cancel_run",
    "forget_old",
    "give_up_lost",
    "key_in_use",
    "renew_key",
    "replay_call",
    "save_as_sample",
    "save_as_version",
    "share_setup",
    "start_run",
    "watched",
]
