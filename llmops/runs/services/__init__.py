"""Changes to runs: started, worked on under a lease, ended, told of."""

from llmops.runs.services.ending import cancel_run
from llmops.runs.services.keys import key_in_use, renew_key
from llmops.runs.services.leasing import take
from llmops.runs.services.starting import hand_on, start_run
from llmops.runs.services.sweeping import forget_old, hand_out
from llmops.runs.services.telling import tell, tell_due
from llmops.runs.services.working import advance, follow

__all__ = [
    "advance",
    "cancel_run",
    "follow",
    "forget_old",
    "hand_on",
    "hand_out",
    "key_in_use",
    "renew_key",
    "start_run",
    "take",
    "tell",
    "tell_due",
]
