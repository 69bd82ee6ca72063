"""Budgets, their windows, and the leases data planes hold on them. All amounts are nanodollars."""

from __future__ import annotations

from django.core.validators import MinValueValidator
from django.db import models
from django.db.models import F, Q

from llmops.access.models import Project, slug_validator
from llmops.base.models import TimestampedModel, UUIDModel
from llmops.budgets.periods import PERIODS, zone
from llmops.budgets.scopes import SCOPE_KINDS


class Budget(TimestampedModel):
    """What may be spent in a period by whatever matches the scope.

    ``scope_value`` is the project's slug, the service key's id, the route's slug, or the feature, end user or tag as
    callers send it; empty for the organisation. ``project`` narrows any scope to one project (and says who may see
    the budget); it is empty only for budgets that span the organisation.
    """

    slug = models.CharField(
        max_length=63, unique=True, validators=[slug_validator], help_text="Named in refusals."
    )
    scope_kind = models.CharField(max_length=20, choices=SCOPE_KINDS)
    scope_value = models.CharField(max_length=200, blank=True)
    project = models.ForeignKey(
        Project, on_delete=models.PROTECT, null=True, blank=True, related_name="budgets"
    )
    period = models.CharField(max_length=10, choices=PERIODS, default="month")
    timezone = models.CharField(max_length=60, default="UTC")
    limit_nano = models.BigIntegerField(validators=[MinValueValidator(0)])
    hard = models.BooleanField(
        default=True, help_text="A hard budget refuses what it cannot pay for; a soft one only tells."
    )
    thresholds = models.JSONField(
        default=list, blank=True, help_text="Percentages at which to tell, such as [50, 80, 100]."
    )
    notify = models.JSONField(
        default=list,
        blank=True,
        db_default=models.Value([], models.JSONField()),
        help_text="E-mail addresses that are told when a threshold is crossed.",
    )
    at_limit_route = models.CharField(
        max_length=63,
        blank=True,
        default="",
        db_default="",
        help_text="Route that serves calls which no longer fit into a hard budget. Empty: they are refused.",
    )
    carry_over_nano = models.BigIntegerField(
        default=0,
        db_default=0,
        validators=[MinValueValidator(0)],
        help_text="The most that a period hands on of what it leaves over. Zero: nothing.",
    )
    second_person = models.BooleanField(
        "looser only by two",
        default=False,
        db_default=False,
        help_text="A higher limit, a soft budget, archiving, and an end of this rule itself take a second person.",
    )
    raised_until = models.DateTimeField(
        null=True, blank=True, editable=False, help_text="The end of its last raise; empty without one."
    )
    archived_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        db_table = "budgets_budget"
        ordering = ["slug"]
        constraints = [
            models.CheckConstraint(condition=Q(limit_nano__gte=0), name="budgets_limit_not_negative"),
            models.CheckConstraint(
                condition=Q(carry_over_nano__gte=0), name="budgets_carry_over_not_negative"
            ),
        ]

    def __str__(self) -> str:
        return self.slug


class Window(models.Model):
    """One period of a budget. ``settled + leased + passed_on <= limit`` at every instant when hard; the database
    enforces it.

    ``limit_nano`` is the budget's limit, what was carried over and what it is raised by at the time, but never falls below what is used: a lowered limit
    takes effect as leases come back. ``overrun`` is what providers charged beyond a hold; ``unattributed`` is the part
    of ``settled`` that a lost journal cost and nobody has explained yet. ``passed_on`` left for the next window when
    this one was over, where it is ``carried``.
    """

    budget = models.ForeignKey(Budget, on_delete=models.PROTECT, related_name="windows")
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField(null=True)
    hard = models.BooleanField()
    limit_nano = models.BigIntegerField()
    settled_nano = models.BigIntegerField(default=0)
    leased_nano = models.BigIntegerField(default=0)
    overrun_nano = models.BigIntegerField(default=0)
    unattributed_nano = models.BigIntegerField(default=0)
    corrected_nano = models.BigIntegerField(
        default=0,
        db_default=0,
        help_text="What people's corrections of calls added to settled, or took from it.",
    )
    carried_nano = models.BigIntegerField(default=0, db_default=0)
    passed_on_nano = models.BigIntegerField(default=0, db_default=0)
    crossed_percent = models.PositiveIntegerField(
        default=0, db_default=0, help_text="The highest threshold whose crossing is on record."
    )

    class Meta:
        db_table = "budgets_window"
        ordering = ["-starts_at"]
        constraints = [
            models.UniqueConstraint(fields=["budget", "starts_at"], name="budgets_window_once"),
            models.CheckConstraint(
                condition=Q(hard=False)
                | Q(limit_nano__gte=F("settled_nano") + F("leased_nano") + F("passed_on_nano")),
                name="budgets_window_never_exceeded",
            ),
            models.CheckConstraint(
                condition=Q(
                    settled_nano__gte=0,
                    leased_nano__gte=0,
                    overrun_nano__gte=0,
                    unattributed_nano__gte=0,
                    carried_nano__gte=0,
                    passed_on_nano__gte=0,
                ),
                name="budgets_window_not_negative",
            ),
        ]

    def __str__(self) -> str:
        if self.ends_at is None:
            return f"{self.budget.slug}, for good"
        return f"{self.budget.slug} from {self.starts_at.astimezone(zone(self.budget.timezone)):%Y-%m-%d}"

    @property
    def used_nano(self) -> int:
        """What of the limit nobody can lease any more: settled, leased, or passed on to the next window."""
        return self.settled_nano + self.leased_nano + self.passed_on_nano


class Lease(models.Model):
    """Money of a window that one data-plane process (its journal) may spend without asking.

    Three counters that only grow; ``granted - returned - consumed`` is outstanding and equals this lease's share of
    the window's ``leased``. A process that lost the answer to a request re-reads them and knows where it stands.
    """

    OPEN, CLOSED, FORFEITED, EXPLAINED = "open", "closed", "forfeited", "explained"

    window = models.ForeignKey(Window, on_delete=models.PROTECT, related_name="leases")
    journal_id = models.UUIDField(db_index=True)
    granted_nano = models.BigIntegerField(default=0)
    returned_nano = models.BigIntegerField(default=0)
    consumed_nano = models.BigIntegerField(default=0)
    state = models.CharField(
        max_length=10,
        default=OPEN,
        choices=[
            (OPEN, "Open"),
            (CLOSED, "Closed"),
            (FORFEITED, "Charged whole"),
            (EXPLAINED, "Explained by a person"),
        ],
    )
    opened_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(db_index=True)

    class Meta:
        db_table = "budgets_lease"
        constraints = [
            models.UniqueConstraint(fields=["window", "journal_id"], name="budgets_lease_once"),
            models.CheckConstraint(
                condition=Q(granted_nano__gte=F("returned_nano") + F("consumed_nano")),
                name="budgets_lease_not_overdrawn",
            ),
        ]

    def __str__(self) -> str:
        return f"lease of {self.window}"

    @property
    def outstanding_nano(self) -> int:
        return self.granted_nano - self.returned_nano - self.consumed_nano


class Raise(UUIDModel):
    """More money for a while: the budget's limit is ``amount`` higher from ``starts_at`` until ``ends_at``. Approved by
    somebody else than who asked; ``request_id`` is that request."""

    budget = models.ForeignKey(Budget, on_delete=models.PROTECT, related_name="raises")
    amount_nano = models.BigIntegerField(validators=[MinValueValidator(1)])
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField()
    reason = models.CharField(max_length=500)
    asked_by = models.CharField(max_length=200)
    approved_by = models.CharField(max_length=200)
    request_id = models.UUIDField(unique=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        db_table = "budgets_raise"
        ordering = ["-starts_at"]
        constraints = [
            models.CheckConstraint(
                condition=Q(amount_nano__gt=0) & Q(ends_at__gt=F("starts_at")),
                name="budgets_raise_makes_sense",
            )
        ]
        indexes = [models.Index(fields=["budget", "ends_at"], name="budgets_raise_end")]

    def __str__(self) -> str:
        return f"until {self.ends_at:%Y-%m-%d %H:%M} UTC"


class Overrun(UUIDModel):
    """What was charged beyond a hold in a window, by which call and why. The sum is the window's ``overrun``; a correction
    adds a row, which may be negative."""

    window = models.ForeignKey(Window, on_delete=models.PROTECT, related_name="overruns")
    call_id = models.UUIDField(null=True)
    amount_nano = models.BigIntegerField()
    cause = models.CharField(max_length=200)
    at = models.DateTimeField()

    class Meta:
        db_table = "budgets_overrun"
        ordering = ["-at"]
        indexes = [models.Index(fields=["window", "-at"], name="budgets_overrun_window")]

    def __str__(self) -> str:
        return f"overrun in {self.window_id}"


class Explanation(UUIDModel):
    """What a person found out about money that a lost journal cost: how much of it was spent. Never changed."""

    lease = models.OneToOneField(Lease, on_delete=models.PROTECT, related_name="explanation")
    charged_nano = models.BigIntegerField()
    spent_nano = models.BigIntegerField()
    reason = models.CharField(max_length=500)
    by_name = models.CharField(max_length=200)
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        db_table = "budgets_explanation"

    def __str__(self) -> str:
        return f"{self.spent_nano} of {self.charged_nano}"


class ThresholdCrossing(UUIDModel):
    """What is settled in a window reached a threshold: one row for each and limit, written with the settlement that did it.

    With ``refusing`` a hard budget refused a call for the first time, because too little was left (``percent`` is 100).
    """

    window = models.ForeignKey(Window, on_delete=models.PROTECT, related_name="crossings")
    percent = models.PositiveIntegerField()
    settled_nano = models.BigIntegerField()
    limit_nano = models.BigIntegerField()
    refusing = models.BooleanField(default=False, db_default=False)
    crossed_at = models.DateTimeField()

    class Meta:
        db_table = "budgets_threshold_crossing"
        ordering = ["-crossed_at", "-percent"]
        constraints = [
            models.UniqueConstraint(
                fields=["window", "percent", "limit_nano", "refusing"], name="budgets_threshold_crossing_once"
            )
        ]
        indexes = [models.Index(fields=["-crossed_at"], name="budgets_crossing_time")]

    def __str__(self) -> str:
        return f"refusals of {self.window}" if self.refusing else f"{self.percent} % of {self.window}"


class ThresholdNotice(UUIDModel):
    """One address that is told of one crossing by e-mail: at most once.

    A worker claims it (``sending``) before it speaks to the mail server. A refusal puts it back until it was tried often
    enough (``failed``); a worker that died in between leaves nobody knowing whether the mail went out (``unknown``), and
    nothing is sent again.
    """

    WAITING, SENDING, SENT, FAILED, UNKNOWN = "waiting", "sending", "sent", "failed", "unknown"

    crossing = models.ForeignKey(ThresholdCrossing, on_delete=models.PROTECT, related_name="notices")
    address = models.EmailField()
    state = models.CharField(
        max_length=8,
        default=WAITING,
        choices=[
            (WAITING, "Waiting"),
            (SENDING, "Being sent"),
            (SENT, "Sent"),
            (FAILED, "Failed"),
            (UNKNOWN, "Unknown: the worker died while sending"),
        ],
    )
    tries = models.PositiveSmallIntegerField(default=0)
    due_at = models.DateTimeField()
    claimed_at = models.DateTimeField(null=True)
    sent_at = models.DateTimeField(null=True)
    problem = models.CharField(max_length=200, blank=True)

    class Meta:
        db_table = "budgets_threshold_notice"
        ordering = ["-due_at"]
        constraints = [
            models.UniqueConstraint(fields=["crossing", "address"], name="budgets_threshold_notice_once")
        ]
        indexes = [
            models.Index(
                fields=["due_at"],
                name="budgets_notice_open",
                condition=Q(state__in=["waiting", "sending"]),
            )
        ]

    def __str__(self) -> str:
        return f"{self.crossing_id} to {self.address}"
