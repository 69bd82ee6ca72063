"""Projects, who belongs to them, and the keys with which services call."""

from __future__ import annotations

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models

from llmops.access.rules import INTERACTIVE, PRIORITIES, ROLES
from llmops.base.models import TimestampedModel, UUIDModel

slug_validator = RegexValidator(
    r"^[a-z0-9][a-z0-9._-]{0,62}$",
    "Use lowercase letters, digits, dots, underscores and hyphens, at most 63, starting with a letter or digit.",
)


class Project(TimestampedModel):
    """The unit that spends: keys, budgets, calls and knowledge belong to one project.

    Its limits hold for all its keys together, beside those of each key. ``default_route`` is a name, since routes live in
    a room above this one.
    """

    slug = models.CharField(max_length=63, unique=True, validators=[slug_validator])
    name = models.CharField(max_length=120)
    owner = models.EmailField(blank=True, help_text="Who answers for this project's spend.")
    cost_center = models.CharField("cost centre", max_length=40, blank=True)
    default_route = models.CharField(
        max_length=63,
        blank=True,
        default="",
        db_default="",
        validators=[slug_validator],
        help_text="The route that answers requests which name no model.",
    )
    rpm = models.PositiveIntegerField(
        "requests per minute", null=True, blank=True, validators=[MinValueValidator(1)]
    )
    tpm = models.PositiveIntegerField(
        "tokens per minute", null=True, blank=True, validators=[MinValueValidator(1)]
    )
    concurrency = models.PositiveIntegerField(
        "calls at once", null=True, blank=True, validators=[MinValueValidator(1)]
    )
    keep_texts_percent = models.PositiveSmallIntegerField(
        "calls whose texts are kept (%)",
        default=0,
        db_default=0,
        validators=[MaxValueValidator(100)],
        help_text="What is asked is kept, redacted and encrypted, of so many calls, taken by chance: policies are then tried on it. "
        "0: of none.",
    )
    keep_texts_readable = models.BooleanField(
        "kept for people to read",
        default=False,
        db_default=False,
        help_text="Answers and parameters are then kept as well, and operators and administrators may read, compare and replay such "
        "calls: every reading is on the record. Off: nobody reads them. Holds for calls from now on.",
    )
    keep_texts_days = models.PositiveSmallIntegerField(
        "days for which they are kept",
        default=7,
        db_default=7,
        validators=[MinValueValidator(1), MaxValueValidator(90)],
    )
    archived_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        db_table = "access_project"
        ordering = ["slug"]

    def __str__(self) -> str:
        return self.name or self.slug


class Membership(TimestampedModel):
    """A role of a person in one project, or in the whole organisation where ``project`` is empty."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="memberships")
    project = models.ForeignKey(
        Project,
        on_delete=models.CASCADE,
        null=True,
        blank=True,
        related_name="memberships",
        help_text="Leave empty for the whole organisation.",
    )
    role = models.CharField(max_length=20, choices=[(role, role.capitalize()) for role in ROLES])

    class Meta:
        db_table = "access_membership"
        ordering = ["user", "project"]
        # One word on every page, as in the navigation.
        verbose_name = "member"
        constraints = [
            # Two, because SQLite has no NULLS NOT DISTINCT.
            models.UniqueConstraint(
                fields=["user", "project", "role"],
                condition=models.Q(project__isnull=False),
                name="access_membership_once_in_project",
            ),
            models.UniqueConstraint(
                fields=["user", "role"],
                condition=models.Q(project__isnull=True),
                name="access_membership_once_everywhere",
            ),
            models.CheckConstraint(condition=models.Q(role__in=ROLES), name="access_membership_role_known"),
        ]

    def __str__(self) -> str:
        return f"{self.user} is {self.role} of {self.project or 'the organisation'}"


class ServiceKey(TimestampedModel):
    """A bearer key of a service. Only SHA-256 of the key is stored; the key itself is shown once.

    Keys are 256 random bits (or at least 24 characters when declared), so a plain fast hash is enough. While
    ``previous_valid_until`` lies ahead, the key's predecessor (``previous_hash``) works too, and
    ``previous_last_used_at`` says who has not moved to the new one yet.
    """

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="service_keys")
    name = models.CharField(max_length=80)
    prefix = models.CharField(
        max_length=16, editable=False, help_text="The part of the key that may be shown."
    )
    secret_hash = models.CharField(max_length=64, unique=True, editable=False)
    previous_hash = models.CharField(max_length=64, null=True, blank=True, unique=True, editable=False)
    previous_valid_until = models.DateTimeField(null=True, blank=True, editable=False)
    previous_prefix = models.CharField(max_length=16, blank=True, default="", db_default="", editable=False)
    previous_last_used_at = models.DateTimeField(null=True, blank=True, editable=False)
    rotated_at = models.DateTimeField(null=True, blank=True, editable=False)
    grace_reminded_at = models.DateTimeField(null=True, blank=True, editable=False)
    scopes = models.JSONField(default=list)
    allowed_routes = models.JSONField(
        default=list, help_text='Route names, or "*" for every published route.'
    )
    allowed_models = models.JSONField(default=list, help_text='Model slugs callable without a route, or "*".')
    rpm = models.PositiveIntegerField(
        "requests per minute", null=True, blank=True, validators=[MinValueValidator(1)]
    )
    tpm = models.PositiveIntegerField(
        "tokens per minute", null=True, blank=True, validators=[MinValueValidator(1)]
    )
    concurrency = models.PositiveIntegerField(
        "calls at once", null=True, blank=True, validators=[MinValueValidator(1)]
    )
    priority = models.CharField(
        max_length=12,
        choices=PRIORITIES,
        default=INTERACTIVE,
        db_default=INTERACTIVE,
        help_text="Who waits when there is not enough for all: batch work waits for people.",
    )
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)
    paused_at = models.DateTimeField(null=True, blank=True, editable=False)
    pause_reason = models.CharField(max_length=300, blank=True, default="", db_default="", editable=False)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)
    held_by_console = models.BooleanField(
        default=False,
        db_default=False,
        editable=False,
        help_text="The console made it for its own calls and holds its secret; nobody is ever shown it.",
    )

    class Meta:
        db_table = "access_service_key"
        ordering = ["project", "name"]
        constraints = [
            models.UniqueConstraint(fields=["project", "name"], name="access_service_key_name"),
            models.CheckConstraint(
                condition=models.Q(priority__in=[name for name, _ in PRIORITIES]),
                name="access_service_key_priority_known",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"


class SecondFactor(TimestampedModel):
    """The seed of a person's one-time passwords, sealed, and hashes of recovery codes. ``last_step`` is the step whose code was
    taken last: none is taken twice. ``failures`` in a row close it until ``closed_until``.
    """

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="second_factor"
    )
    sealed = models.TextField(editable=False)
    last_step = models.BigIntegerField(default=0, editable=False)
    recovery_hashes = models.JSONField(default=list, editable=False)
    failures = models.PositiveIntegerField(default=0, editable=False)
    closed_until = models.DateTimeField(null=True, editable=False)
    last_used_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        db_table = "access_second_factor"

    def __str__(self) -> str:
        return f"second factor of {self.user}"


class Passkey(TimestampedModel):
    """A WebAuthn credential of a person. Nothing of it is secret: ``credential`` is its attested credential data in hex.

    ``sign_count`` is the authenticator's counter as it was seen last (0 where it has none). ``synced``: it is kept in more
    than one place by whoever made it.
    """

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="passkeys")
    name = models.CharField(max_length=80)
    credential_id = models.CharField(max_length=1400, unique=True, editable=False)
    credential = models.TextField(editable=False)
    sign_count = models.BigIntegerField(default=0, editable=False)
    transports = models.JSONField(default=list, editable=False)
    synced = models.BooleanField(default=False, editable=False)
    last_used_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        db_table = "access_passkey"
        ordering = ["created_at"]

    def __str__(self) -> str:
        return f"passkey {self.name} of {self.user}"


class SignIn(UUIDModel):
    """A session of a person: from where, since when, seen last when. It goes with the session."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="sign_ins")
    session_key = models.CharField(max_length=40, unique=True, editable=False)
    ip = models.CharField(max_length=64, blank=True)
    agent = models.CharField(max_length=200, blank=True)
    how = models.CharField(max_length=40, blank=True)
    signed_in_at = models.DateTimeField()
    seen_at = models.DateTimeField()

    class Meta:
        db_table = "access_sign_in"
        ordering = ["-seen_at"]

    def __str__(self) -> str:
        return f"session of {self.user} from {self.ip or 'nowhere'}"


class OidcIdentity(UUIDModel):
    """Who an account is to an OpenID provider."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="oidc_identity"
    )
    issuer = models.CharField(max_length=300)
    subject = models.CharField(max_length=255)

    class Meta:
        db_table = "access_oidc_identity"
        constraints = [
            models.UniqueConstraint(fields=["issuer", "subject"], name="access_oidc_identity_once")
        ]

    def __str__(self) -> str:
        return f"{self.user} at {self.issuer}"
