"""Providers, their credentials, pinned models with prices, and routes."""

from __future__ import annotations

from django.core.exceptions import ValidationError
from django.core.validators import MaxLengthValidator, MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q

from llmops.access.models import slug_validator
from llmops.base.models import TimestampedModel, UUIDModel
from llmops.core.money import NANO
from llmops.providers.models.health import (
    CredentialHeadroom,
    CredentialTrouble,
    CredentialUse,
    HealthEvent,
    OpenBreaker,
)
from llmops.providers.models.rotations import Rotation
from llmops.providers.models.trials import ModelTrial
from llmops.providers.rules import (
    CONTEXT_STRATEGIES,
    CREDENTIAL_SOURCES,
    CREDENTIAL_STATES,
    FAILURE_CLASSES,
    LAST_RESORTS,
    LONGEST_ANSWER,
    NO_LAST_RESORT,
    PROVIDER_KINDS,
    REFUSE,
    TOKEN_CLASSES,
    highest_price,
    unit_of,
)

__all__ = [
    "Credential",
    "CredentialHeadroom",
    "CredentialTrouble",
    "CredentialUse",
    "HealthEvent",
    "Model",
    "ModelConfig",
    "ModelTrial",
    "OpenBreaker",
    "Price",
    "Provider",
    "Rotation",
    "Route",
    "RouteTarget",
]

#: of milliseconds: a tenth of a second to an hour
duration = [MinValueValidator(100), MaxValueValidator(3_600_000)]
tokens = [MaxValueValidator(100_000_000)]


class Provider(TimestampedModel):
    """An endpoint that serves models. Time-outs are milliseconds; ``read`` is the longest silence of an answer."""

    slug = models.CharField(max_length=63, unique=True, validators=[slug_validator])
    name = models.CharField(max_length=120, blank=True)
    kind = models.CharField(max_length=20, choices=PROVIDER_KINDS)
    base_url = models.URLField(
        "base URL",
        max_length=300,
        help_text="Up to and including the version, such as https://api.openai.com/v1",
    )
    connect_timeout_ms = models.PositiveIntegerField(
        "connect time-out (ms)", default=5_000, validators=duration
    )
    read_timeout_ms = models.PositiveIntegerField("read time-out (ms)", default=60_000, validators=duration)
    write_timeout_ms = models.PositiveIntegerField("write time-out (ms)", default=10_000, validators=duration)
    pool_timeout_ms = models.PositiveIntegerField("pool time-out (ms)", default=10_000, validators=duration)
    max_connections = models.PositiveIntegerField(
        "connections at most", default=1_000, validators=[MinValueValidator(1), MaxValueValidator(100_000)]
    )
    proxy_url = models.CharField(
        "proxy",
        max_length=300,
        blank=True,
        help_text="http://host:port of a proxy on the way, without a password.",
    )
    organization = models.CharField(
        max_length=120, blank=True, help_text="Sent as OpenAI-Organization where it is given."
    )
    provider_project = models.CharField(
        "project", max_length=120, blank=True, help_text="Sent as OpenAI-Project where it is given."
    )
    allow_private_network = models.BooleanField(
        "private networks allowed",
        default=False,
        help_text="Allow an address on a private or loopback network (a model served in-house).",
    )
    passthrough = models.JSONField(
        "paths passed through",
        default=list,
        db_default=[],
        blank=True,
        help_text="Other paths under /v1/ that services may reach at this provider, such as /vector_stores/*.",
    )
    shared_objects = models.JSONField(
        "objects for every project",
        default=list,
        db_default=[],
        blank=True,
        help_text="Ids of what this provider keeps that every project may name, such as vs_abc123 or pmpt_*.",
    )
    paused_at = models.DateTimeField(null=True, blank=True, editable=False)
    pause_reason = models.CharField(max_length=300, blank=True, editable=False)
    archived_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        db_table = "providers_provider"
        ordering = ["slug"]
        constraints = [
            models.CheckConstraint(
                condition=Q(kind__in=[k for k, _ in PROVIDER_KINDS]), name="providers_kind_known"
            )
        ]

    def __str__(self) -> str:
        return self.name or self.slug


class Credential(TimestampedModel):
    """A provider key: sealed under a master key, or a reference into a secret store. It can be written, never read.

    ``fingerprint`` is the first 12 hex digits of SHA-256 of the secret: enough to tell two keys apart. ``origin`` is where the
    provider was when the key was given (``rules.origin_of``): the key is sent nowhere else, whatever the provider's URL becomes.
    """

    provider = models.ForeignKey(Provider, on_delete=models.PROTECT, related_name="credentials")
    name = models.CharField(max_length=80)
    source = models.CharField(max_length=10, choices=CREDENTIAL_SOURCES)
    reference = models.CharField(
        max_length=300,
        blank=True,
        help_text="Name of the environment variable, path of the file, path in the store.",
    )
    sealed = models.TextField(blank=True, editable=False)
    fingerprint = models.CharField(max_length=12, blank=True, editable=False)
    origin = models.CharField(
        "given for", max_length=300, blank=True, editable=False, default="", db_default=""
    )
    state = models.CharField(max_length=10, choices=CREDENTIAL_STATES, default="staged", editable=False)
    state_changed_at = models.DateTimeField(null=True, blank=True, editable=False)
    set_at = models.DateTimeField("key set", null=True, blank=True, editable=False)
    rotate_after_days = models.PositiveIntegerField(
        "days until it is due",
        null=True,
        blank=True,
        editable=False,
        validators=[MaxValueValidator(3_650)],
    )
    reminded_at = models.DateTimeField(null=True, blank=True, editable=False)
    last_probe_at = models.DateTimeField(null=True, blank=True, editable=False)
    last_probe_result = models.CharField(max_length=300, blank=True, editable=False)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)
    last_failure_at = models.DateTimeField(null=True, blank=True, editable=False)
    last_failure = models.CharField(max_length=120, blank=True, editable=False)

    class Meta:
        db_table = "providers_credential"
        ordering = ["provider", "name"]
        constraints = [
            models.UniqueConstraint(fields=["provider", "name"], name="providers_credential_name"),
            models.CheckConstraint(
                condition=Q(source="sealed") | Q(sealed=""), name="providers_credential_sealed_only_when_kept"
            ),
            models.CheckConstraint(
                condition=Q(state__in=[state for state, _ in CREDENTIAL_STATES]),
                name="providers_credential_state_known",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.provider.slug}/{self.name}"


class Model(TimestampedModel):
    """The name under which a pinned model is known; ``current`` points to its newest immutable configuration."""

    slug = models.CharField(max_length=63, unique=True, validators=[slug_validator])
    current = models.ForeignKey(
        "ModelConfig", on_delete=models.PROTECT, null=True, editable=False, related_name="current_of"
    )
    archived_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        db_table = "providers_model"
        ordering = ["slug"]

    def __str__(self) -> str:
        return self.slug


class ModelConfig(UUIDModel):
    """One immutable version of how a model is called. Token counts in tokens; ``parameters`` are request defaults."""

    model = models.ForeignKey(Model, on_delete=models.PROTECT, related_name="versions")
    version = models.PositiveIntegerField(editable=False)
    provider = models.ForeignKey(Provider, on_delete=models.PROTECT, related_name="model_configs")
    upstream_model = models.CharField(
        "model at the provider", max_length=120, help_text="The pinned snapshot id, as the provider names it."
    )
    floats = models.BooleanField(default=False, help_text="The provider may change what this name means.")
    floats_reason = models.CharField(
        max_length=300, blank=True, help_text="Why a name that may change its meaning is used all the same."
    )
    context_window = models.PositiveIntegerField(validators=[MinValueValidator(1), *tokens])
    max_output_tokens = models.PositiveIntegerField("maximum output", validators=tokens)
    default_max_output_tokens = models.PositiveIntegerField("default output", validators=tokens)
    parameters = models.JSONField(default=dict, blank=True)
    capabilities = models.JSONField(default=list, blank=True)
    note = models.CharField(max_length=300, blank=True)
    digest = models.CharField(max_length=64, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.CharField(max_length=200, editable=False)

    class Meta:
        db_table = "providers_model_config"
        ordering = ["model", "-version"]
        verbose_name = "model version"
        constraints = [
            models.UniqueConstraint(fields=["model", "version"], name="providers_model_config_version"),
            models.CheckConstraint(
                condition=Q(default_max_output_tokens__lte=models.F("max_output_tokens")),
                name="providers_default_output_within_max",
            ),
            models.CheckConstraint(
                condition=Q(max_output_tokens__lte=models.F("context_window")),
                name="providers_max_output_within_context",
            ),
            models.CheckConstraint(
                condition=Q(floats=False) | ~Q(floats_reason=""), name="providers_floating_on_the_record"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.model_id and self.model.slug} v{self.version}"


class Price(UUIDModel):
    """What a token class of a model costs from a moment on, in nanodollars per million tokens. Never edited."""

    model = models.ForeignKey(Model, on_delete=models.PROTECT, related_name="prices")
    token_class = models.CharField(max_length=32, choices=TOKEN_CLASSES)
    nano_per_million = models.BigIntegerField(validators=[MinValueValidator(0)])
    effective_from = models.DateTimeField()
    source = models.CharField(max_length=200, blank=True, help_text="Where the price was read, and when.")
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.CharField(max_length=200, editable=False)

    class Meta:
        db_table = "providers_price"
        ordering = ["model", "token_class", "-effective_from"]
        constraints = [
            models.UniqueConstraint(
                fields=["model", "token_class", "effective_from"], name="providers_price_dated_once"
            ),
            models.CheckConstraint(condition=Q(nano_per_million__gte=0), name="providers_price_not_negative"),
        ]

    def clean(self) -> None:
        most = highest_price(self.token_class)
        if isinstance(self.nano_per_million, int) and self.nano_per_million > most:
            raise ValidationError(
                {
                    "nano_per_million": f"At most {most // NANO:,} USD for a million {unit_of(self.token_class)}."
                }
            )

    def __str__(self) -> str:
        return f"{self.model.slug} {self.token_class} from {self.effective_from:%Y-%m-%d}"


class Route(TimestampedModel):
    """A public name for weighted targets and ordered fallbacks. A draft until published, except its switches: paused
    (every call is refused) and degraded (targets are passed over for the fallbacks and the last resort).

    ``policies`` are slugs, since the policies live in a room beside this one; what is published must name some that exist.
    """

    slug = models.CharField(max_length=63, unique=True, validators=[slug_validator])
    description = models.CharField(max_length=300, blank=True)
    attempts = models.PositiveSmallIntegerField(
        default=3,
        validators=[MinValueValidator(1), MaxValueValidator(10)],
        help_text="Attempts in all, over targets and fallbacks.",
    )
    total_timeout_ms = models.PositiveIntegerField("total time-out (ms)", default=90_000, validators=duration)
    breaker_failure_percent = models.PositiveSmallIntegerField(
        "failure rate (%)", default=50, validators=[MinValueValidator(1), MaxValueValidator(100)]
    )
    breaker_window_s = models.PositiveIntegerField(
        "window (s)", default=60, validators=[MinValueValidator(1), MaxValueValidator(3_600)]
    )
    breaker_min_calls = models.PositiveIntegerField(
        "calls at least", default=20, validators=[MinValueValidator(1), MaxValueValidator(1_000_000)]
    )
    breaker_cooldown_s = models.PositiveIntegerField(
        "cool-down (s)", default=30, validators=[MinValueValidator(1), MaxValueValidator(3_600)]
    )
    cache_ttl_s = models.PositiveIntegerField(
        "cache answers for (s)",
        default=0,
        validators=[MaxValueValidator(2_592_000)],
        help_text="0 switches the response cache off.",
    )
    cache_tools = models.BooleanField(
        "also requests that offer tools",
        default=False,
        db_default=False,
        help_text="An answer that calls a tool is then given again as well.",
    )
    clamp_output = models.BooleanField(
        "lower the output cap to the budget",
        default=True,
        help_text="Lower the output cap to what a budget still allows, instead of refusing the call.",
    )
    context_strategy = models.CharField(
        "when the input is too long",
        max_length=20,
        choices=CONTEXT_STRATEGIES,
        default=REFUSE,
        db_default=REFUSE,
        help_text="What is done with a request that does not fit into the model's context window.",
    )
    larger_model = models.ForeignKey(
        Model,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="larger_for",
        help_text="Takes the call when the input is too long for the target; its window must be larger.",
    )
    summary_model = models.ForeignKey(
        Model,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="summary_for",
        help_text="Writes the summary of the oldest turns; its calls are priced and recorded like any other.",
    )
    last_resort = models.CharField(
        "when nothing else answers",
        max_length=10,
        choices=LAST_RESORTS,
        default=NO_LAST_RESORT,
        db_default=NO_LAST_RESORT,
        help_text="What callers get after the last fallback failed. Answers of this kind are marked as such.",
    )
    static_answer = models.TextField(
        "fixed answer",
        max_length=LONGEST_ANSWER,
        validators=[MaxLengthValidator(LONGEST_ANSWER)],
        blank=True,
        default="",
        db_default="",
        help_text="The text that callers get as the assistant's message, without any model.",
    )
    max_concurrency = models.PositiveIntegerField(
        "calls at once",
        default=0,
        db_default=0,
        validators=[MaxValueValidator(100_000)],
        help_text="To one target, from one data-plane process. 0: as many as the provider shows that it can take.",
    )
    queue_size = models.PositiveIntegerField(
        "places in the queue",
        default=200,
        db_default=200,
        validators=[MaxValueValidator(100_000)],
        help_text="Calls that may wait for their turn; the next one gets 429 at once. 0: none waits.",
    )
    queue_timeout_ms = models.PositiveIntegerField(
        "wait at most (ms)", default=5_000, db_default=5_000, validators=duration
    )
    keep_alive_s = models.PositiveIntegerField(
        "comment on silent streams every (s)",
        default=15,
        db_default=15,
        validators=[MaxValueValidator(3_600)],
        help_text="Keeps proxies on the way from closing a stream whose model is still thinking. 0: never.",
    )
    policies = models.JSONField(
        default=list,
        db_default=[],
        blank=True,
        help_text="Names of policies that calls of this route must pass, in their order, beside those that hold everywhere.",
    )
    paused_at = models.DateTimeField(null=True, blank=True, editable=False)
    pause_reason = models.CharField(max_length=300, blank=True, editable=False)
    degraded_at = models.DateTimeField(null=True, blank=True, editable=False)
    degrade_reason = models.CharField(max_length=300, blank=True, default="", db_default="", editable=False)
    breakers_reset_at = models.DateTimeField(null=True, blank=True, editable=False)
    archived_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        db_table = "providers_route"
        ordering = ["slug"]
        constraints = [
            models.CheckConstraint(
                condition=Q(context_strategy__in=[name for name, _ in CONTEXT_STRATEGIES]),
                name="providers_route_strategy_known",
            ),
            models.CheckConstraint(
                condition=Q(last_resort__in=[name for name, _ in LAST_RESORTS]),
                name="providers_route_last_resort_known",
            ),
        ]

    def __str__(self) -> str:
        return self.slug


class RouteTarget(UUIDModel):
    """A model of a route: a weighted target, or a fallback at ``position`` (ascending).

    A fallback with a ``failure_class`` is tried after failures of that class only, in place of the general ones.
    """

    route = models.ForeignKey(Route, on_delete=models.CASCADE, related_name="targets")
    model = models.ForeignKey(Model, on_delete=models.PROTECT, related_name="route_targets")
    fallback = models.BooleanField(default=False)
    failure_class = models.CharField(
        max_length=20, choices=FAILURE_CLASSES, blank=True, default="", db_default=""
    )
    weight = models.PositiveIntegerField(
        default=100,
        validators=[MaxValueValidator(1_000_000)],
        help_text="Share among targets; ignored for fallbacks.",
    )
    position = models.PositiveSmallIntegerField(default=0)

    class Meta:
        db_table = "providers_route_target"
        ordering = ["fallback", "position", "id"]
        constraints = [
            models.UniqueConstraint(
                fields=["route", "model", "fallback", "failure_class"], name="providers_route_target_once"
            ),
            models.CheckConstraint(
                condition=Q(failure_class="")
                | Q(fallback=True, failure_class__in=[name for name, _ in FAILURE_CLASSES]),
                name="providers_route_target_class_known",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.route.slug} → {self.model.slug}"
