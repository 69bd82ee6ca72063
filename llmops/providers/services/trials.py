"""Test calls: one small, real call of a model that need not be published yet, by the probe and under a limit of its own."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Sum
from django.utils import timezone

from llmops.audit.services import record
from llmops.base.locks import lock
from llmops.core.actors import Actor
from llmops.core.errors import Conflict, ConsoleError, UnprocessableEntity
from llmops.core.money import format_usd
from llmops.providers.listing import ListedModel, listed_models
from llmops.providers.models import Credential, Model, ModelConfig, ModelTrial, Provider
from llmops.providers.pricing import PriceBook, Prices
from llmops.providers.selectors import reveal

KIND = "providers.model"
_LOCK = "providers.model_trials"
#: What is said, the most tokens that it and a provider's frame around it are, and how many may be answered.
_WORDS = "Say hello."
INPUT_TOKENS, OUTPUT_TOKENS = 200, 256
#: The limit is for this long back.
_DAY = timedelta(days=1)


def list_models(actor: Actor, *, provider: Provider) -> list[ListedModel]:
    """The models that a provider lists to its key in use. That it was asked is on the record, also when it did not answer.

    Raises ``listing.ListRefused`` or ``direct.NotAnswered``; ``Conflict`` without a key, and then nothing was asked.
    """
    secret = _secret(provider)
    found: list[ListedModel] = []
    refused: ConsoleError | None = None
    try:
        found = listed_models(provider, secret)
        told = f"{len(found)} models"
    except ConsoleError as error:
        told, refused = error.message, error
    with transaction.atomic():
        record(
            actor,
            action="provider.models_listed",
            object_type="providers.provider",
            object_id=provider.pk,
            object_name=provider.slug,
            after={"told": told[:300]},
        )
    if refused is not None:
        raise refused
    return found


def try_model(actor: Actor, *, model: Model) -> ModelTrial:
    """Call the current version of ``model`` once, as it is drafted.

    The most that it can cost is counted towards the day's limit before it is sent (``settings.MODEL_TRIALS_NANO_A_DAY``), so that
    no crash spends past it. The call is made outside a transaction; what came of it is returned and on the record, also when it
    failed. Raises ``Conflict`` or ``UnprocessableEntity`` when nothing was sent.
    """
    version = Model.objects.select_related("current__provider").get(pk=model.pk).current
    if version is None:
        raise Conflict(f"{model.slug} has no version that could be called.")
    path, body = _request(version)
    prices = prices_now(model)
    if prices is None:
        raise UnprocessableEntity(
            f"{model.slug} has no price, so that nobody could say what the call costs. Add its prices first.",
            code="no_price",
        )
    secret = _secret(version.provider)
    output = OUTPUT_TOKENS if version.max_output_tokens else 0
    trial = _held(actor, version, prices.worst_cost(INPUT_TOKENS, output))
    _call(trial, version, prices, secret, path, body)
    return _ended(actor, trial, model)


def prices_now(model: Model) -> Prices | None:
    """The prices in force now, published or not."""
    return PriceBook(
        _Row(one.token_class, int(one.effective_from.timestamp()), one.nano_per_million)
        for one in model.prices.all()
    ).at(timezone.now().timestamp())


class _Row:
    """A stored price as ``pricing.PriceBook`` takes it."""

    def __init__(self, token_class: str, since: int, nano_per_million: int) -> None:
        self.token_class, self.since, self.nano_per_million = token_class, since, nano_per_million


class _Used:
    """Tokens as ``pricing.Billed`` names them."""

    cache_write = 0
    media = None

    def __init__(self, told: dict[str, Any]) -> None:
        self.input = _count(told, "prompt_tokens")
        self.output = _count(told, "completion_tokens")
        inside = told.get("prompt_tokens_details")
        self.cached = _count(inside, "cached_tokens") if isinstance(inside, dict) else 0
        inside = told.get("completion_tokens_details")
        self.reasoning = _count(inside, "reasoning_tokens") if isinstance(inside, dict) else 0


def _count(told: dict[str, Any], name: str) -> int:
    value = told.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**9 else 0


def _secret(provider: Provider) -> str:
    credential = (
        Credential.objects.filter(provider=provider, state="active").order_by("-state_changed_at").first()
    )
    if credential is None:
        raise Conflict(
            f"{provider.slug} has no key in use. Add one under Credentials, probe and activate it."
        )
    return reveal(credential, to=provider.base_url)


def _request(version: ModelConfig) -> tuple[str, dict[str, Any]]:
    """Path and body of the smallest call that the model answers."""
    able = set(version.capabilities)
    if not able & {"chat"}:
        for purpose in ("images", "speech", "transcription", "rerank"):
            if purpose in able:
                raise UnprocessableEntity(
                    f"A model for {purpose} is not called for a test: publish it and call it once.",
                    code="no_test_call",
                )
        if "embeddings" in able:
            return "/embeddings", {"model": version.upstream_model, "input": _WORDS}
        if "moderation" in able:
            return "/moderations", {"model": version.upstream_model, "input": _WORDS}
    cap = "max_tokens" if version.provider.kind == "compatible" else "max_completion_tokens"
    return "/chat/completions", {
        **version.parameters,
        "model": version.upstream_model,
        "messages": [{"role": "user", "content": _WORDS}],
        cap: min(OUTPUT_TOKENS, version.max_output_tokens),
    }


def _held(actor: Actor, version: ModelConfig, worst: int) -> ModelTrial:
    now = timezone.now()
    with transaction.atomic():
        lock(_LOCK)
        spent = ModelTrial.objects.filter(at__gte=now - _DAY).aggregate(sum=Sum("charged_nano"))["sum"] or 0
        limit: int = settings.MODEL_TRIALS_NANO_A_DAY
        if spent + worst > limit:
            raise Conflict(
                f"Test calls may cost {format_usd(limit)} USD in 24 hours (CONSOLE_MODEL_TRIALS_USD); {format_usd(spent)} are "
                f"spent, and this one can cost {format_usd(worst)}. Try again later, or publish the model and call it under a budget."
            )
        return ModelTrial.objects.create(
            model=version.model,
            version=version.version,
            at=now,
            by=actor.name[:200],
            held_nano=worst,
            charged_nano=worst,
        )


def _call(
    trial: ModelTrial, version: ModelConfig, prices: Prices, secret: str, path: str, body: dict[str, Any]
) -> None:
    """Makes the call and writes onto ``trial`` what came of it."""
    from llmops.providers import direct

    provider = version.provider
    try:
        reply = direct.ask(provider, secret, "POST", path, body)
    except ConsoleError as failed:
        sent = getattr(failed, "sent", True)
        trial.state = ModelTrial.UNKNOWN if sent else ModelTrial.FAILED
        trial.charged_nano = trial.held_nano if sent else 0
        trial.told = failed.message[:300]
        return
    trial.took_ms = round(reply.seconds * 1000)
    if reply.status != 200:
        trial.state, trial.charged_nano = ModelTrial.FAILED, 0
        trial.told = (
            f"{provider.slug} does not know {version.upstream_model!r}, or it is not for this: "
            f"{direct.asked(provider, 'POST', path)} answered {reply.status}."
            if reply.status in (400, 404)
            else direct.refusal(provider, reply, "POST", path)
        )[:300]
        return
    used = _usage(reply.body)
    trial.state = ModelTrial.ANSWERED
    if used is None:
        trial.told = "It answered, but did not say what it used: counted at the most it can cost."
        return
    trial.input_tokens, trial.output_tokens = used.input, used.output
    trial.charged_nano = prices.cost(used)
    trial.told = f"It answered in {trial.took_ms:,} ms: {used.input:,} tokens in, {used.output:,} out, {format_usd(trial.charged_nano)} USD."


def _usage(body: bytes) -> _Used | None:
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        return None
    usage = told.get("usage") if isinstance(told, dict) else None
    used = _Used(usage) if isinstance(usage, dict) else None
    return used if used is not None and used.input else None


def _ended(actor: Actor, trial: ModelTrial, model: Model) -> ModelTrial:
    with transaction.atomic():
        trial.save()
        record(
            actor,
            action="model.tested",
            object_type=KIND,
            object_id=model.pk,
            object_name=model.slug,
            after={
                "version": trial.version,
                "outcome": trial.state,
                "told": trial.told,
                "input_tokens": trial.input_tokens,
                "output_tokens": trial.output_tokens,
                "cost_usd": format_usd(trial.charged_nano),
                "took_ms": trial.took_ms,
            },
        )
    return trial
