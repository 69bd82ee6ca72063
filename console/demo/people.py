"""Two people of the demo's organisation, and the raises that they asked each other for. Neither can sign in."""

from __future__ import annotations

from datetime import timedelta

from django.contrib.auth import get_user_model

from llmops.access.rules import FINANCE
from llmops.access.services import add_member, create_user
from llmops.approvals.services import decide
from llmops.base.clock import database_now
from llmops.base.requests import user_actor
from llmops.budgets.models import Budget
from llmops.budgets.services import ask_raise
from llmops.core.actors import Actor
from llmops.core.money import NANO


def ask_for_raises(actor: Actor) -> None:
    """One raise that was approved, and one that waits for whoever reads this."""
    mira, jonas = (
        _person(actor, name, full) for name, full in (("demo.mira", "Mira"), ("demo.jonas", "Jonas"))
    )
    now = database_now()
    asked = ask_raise(
        mira,
        budget_id=_budget("support-month"),
        amount_nano=10 * NANO,
        ends_at=now + timedelta(days=5),
        reason="The campaign brings more mail than usual; drafts keep up with it until it is over.",
    )
    decide(
        jonas,
        request_id=asked.pk,
        approves=True,
        seen=asked.digest,
        reason="Agreed in the weekly review.",
    )
    ask_raise(
        jonas,
        budget_id=_budget("search-day"),
        amount_nano=3 * NANO,
        ends_at=now + timedelta(days=3),
        reason="The catalogue is read in again; last month the run was cut off by this budget.",
    )


def _person(actor: Actor, username: str, first_name: str) -> Actor:
    user = get_user_model().objects.filter(username=username).first()
    if user is None:
        # Without a password nobody can sign in.
        user = create_user(actor, username=username, first_name=first_name, last_name="(demo)")
        add_member(actor, user=user, project=None, role=FINANCE)
    return user_actor(user)


def _budget(slug: str):
    return Budget.objects.values_list("pk", flat=True).get(slug=slug)
