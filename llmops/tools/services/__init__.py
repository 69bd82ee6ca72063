"""Changes to tools and actions: each is one transaction with one audit event."""

from llmops.tools.services.executing import (
    carry_out,
    claim,
    execute,
    expire_unbegun,
    finish,
    settle_crashed,
)
from llmops.tools.services.handing import redeem, report, resolve, token_of
from llmops.tools.services.proposing import call_off, check_account, propose, revise, withdraw
from llmops.tools.services.tools import (
    add_version,
    archive_tool,
    call_as_dry_run,
    create_tool,
    pause_tool,
    resume_tool,
    rotate_secret,
    unarchive_tool,
)

__all__ = [
    "add_version",
    "archive_tool",
    "call_as_dry_run",
    "call_off",
    "carry_out",
    "check_account",
    "claim",
    "create_tool",
    "execute",
    "expire_unbegun",
    "finish",
    "pause_tool",
    "propose",
    "redeem",
    "report",
    "resolve",
    "resume_tool",
    "revise",
    "rotate_secret",
    "settle_crashed",
    "token_of",
    "unarchive_tool",
    "withdraw",
]
