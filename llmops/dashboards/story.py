"""One call's story, as text and numbers ready for the template."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from math import ceil
from uuid import UUID

from django.db.models import Q
from django.urls import reverse

from llmops.access.selectors import may
from llmops.budgets.models import Budget
from llmops.core.money import MILLION
from llmops.core.verdicts import BEFORE, BLOCK, REQUIRE_APPROVAL, Finding, Verdict
from llmops.dashboards import formats, words
from llmops.dashboards.filters import CUSTOM, Filters, Period
from llmops.dashboards.lanes import WIDTH, Lane, in_short, lanes_of
from llmops.dashboards.reader import Reader
from llmops.dashboards.simulated import simulated_providers
from llmops.policies.checks import CHECKS, describe
from llmops.prompts.models import Prompt
from llmops.providers.models import ModelConfig, Route
from llmops.providers.pricing import PriceBook, Prices
from llmops.serving.models import Revision
from llmops.serving.snapshot import decode_document
from llmops.usage.models import Call
from llmops.usage.records import Media, Tokens
from llmops.usage.selectors import CallStory, call_story, kept_answer
from llmops.usage.work import is_model_work

#: How a budget's refusal begins (``gateway.admission``, ``gateway.money``).
_REFUSING = re.compile(r"The budget '([^']+)' ")
_NO_PRICES = Prices(0, 0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class TokenRow:
    """``price_nano`` per million of ``tokens``; the cost of a row is exact, because only the sum is rounded (up, once)."""

    name: str
    tokens: int
    price_nano: int | None
    cost_nano: Fraction | None
    #: whether it counts something else than tokens
    unit: bool = False


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of the call's time: whose it was, how long, and where it lies on the bar."""

    name: str
    css: str
    microseconds: int
    x: int
    width: int


@dataclass(frozen=True, slots=True)
class ChargeRow:
    budget: str
    href: str
    soft: bool
    held_nano: int
    cost_nano: int
    overrun_nano: int
    starts_at: datetime | None
    ends_at: datetime | None


@dataclass(frozen=True, slots=True)
class VerdictRow:
    """What a policy said: the check, the policy version, what it found and what was done, in words."""

    check: str
    policy: str
    version: int
    when: str
    found: list[str]
    done: str
    note: str
    stopped: bool


@dataclass(frozen=True, slots=True)
class Story:
    told: CallStory
    status_word: str
    headline: str
    meaning: str
    error_words: str
    simulated: bool
    lanes: list[Lane]
    #: what each model that it met did, for a call that went on to another
    in_short: list[str]
    #: attempts whose whole hold is charged, as "attempt 5"
    at_hold: str
    verdicts: list[VerdictRow]
    tokens: list[TokenRow]
    priced_at: datetime | None
    other_cost_nano: int
    parts: list[Part]
    charges: list[ChargeRow]
    links: dict[str, str]
    neighbours: str
    total_tokens: int
    #: whether something is billed that is not a token
    units: bool
    cache_words: str
    #: what the provider keeps of an answer whose bill nobody knew
    kept: str = ""


def story(reader: Reader, call_id: UUID) -> Story:
    """Raises ``NotFound``, also when the call belongs to a project that the reader may not see."""
    told = call_story(call_id, project_ids=reader.project_ids())
    call = told.call
    simulated = simulated_providers()
    lanes = lanes_of(reader, told, simulated)
    tokens, priced_at = _tokens(call)
    return Story(
        told=told,
        status_word=words.status_word(call.status),
        headline=headline(call, lanes),
        meaning=words.status_meaning(call.status, call.attempt_count),
        error_words=words.error_words(call.error_code) if call.error_code else "",
        simulated=call.provider in simulated or any(lane.simulated for lane in lanes),
        lanes=lanes,
        in_short=in_short(lanes),
        at_hold=_at_hold(lanes),
        verdicts=[_verdict(one) for one in told.verdicts],
        tokens=tokens,
        priced_at=priced_at,
        other_cost_nano=_other_cost(call, tokens),
        parts=_parts(call),
        charges=[
            ChargeRow(
                charge.budget,
                reader.link("budgets.budget", charge.budget_id) if charge.budget_id else "",
                charge.soft,
                charge.held_nano,
                charge.cost_nano,
                charge.overrun_nano,
                charge.starts_at,
                charge.ends_at,
            )
            for charge in told.charges
        ],
        links=_links(reader, told),
        kept=kept_answer(call) if call.charged_at_hold else "",
        neighbours=_neighbours(call),
        total_tokens=call.input_tokens + call.output_tokens,
        units=any(row.unit for row in tokens),
        cache_words=words.CACHE.get(call.cache, ""),
    )


def headline(call: Call, lanes: list[Lane]) -> str:
    """The call in one sentence."""
    tried = _tried(call.attempt_count)
    took = formats.duration(call.total_us)
    if call.status == Call.REFUSED:
        return f"The console refused this call after {took}: {words.error_words(call.error_code).lower()}."
    if call.status == Call.UNKNOWN:
        return "The process died while this call was with the provider; its outcome is unknown."
    answered = call.model or (
        "A model" if is_model_work(call.endpoint, "") else call.provider or "The provider"
    )
    if call.status == Call.OK:
        if call.cache == "stale":
            return f"An earlier answer of {answered} stood in after {took}, because nothing else could answer ({tried})."
        if call.cache == "replayed":
            return f"The first answer under the same Idempotency-Key was given again after {took}; it cost nothing this time."
        if call.cache in words.ANSWERED_FROM_CACHE:
            return f"Answered in {took} with an earlier answer of {answered}, which saved asking again."
        if call.error_code == "static_answer":
            return f"No model could answer ({tried}): the route's fixed answer was given after {took}."
        if call.fallback_count:
            failed = list(
                dict.fromkeys(lane.model for lane in lanes if lane.failed and lane.model != call.model)
            )
            if not failed:
                return f"{answered} answered in {took}, in place of the route's targets."
            return f"{answered} answered in {took}, after {_and(failed)} had failed ({tried})."
        if call.retry_count:
            return f"{answered} answered in {took}, at the second try or later ({tried})."
        return f"{answered} answered in {took}."
    if call.status == Call.CLIENT_CLOSED:
        return f"The service hung up after {took}."
    if call.status == Call.INTERRUPTED:
        return f"{answered} began to answer, then the stream broke off after {took}."
    return f"No answer after {tried} and {took}: {words.error_words(call.error_code).lower()}."


def _verdict(verdict: Verdict) -> VerdictRow:
    return VerdictRow(
        check=describe(verdict.check).title if verdict.check in CHECKS else verdict.check,
        policy=verdict.policy,
        version=verdict.version,
        when="in what was asked" if verdict.stage == BEFORE else "in the answer",
        found=[_found(finding) for finding in verdict.findings],
        done=words.POLICY_DONE.get((verdict.stage, verdict.action), verdict.action),
        note=verdict.note,
        stopped=verdict.action in (REQUIRE_APPROVAL, BLOCK),
    )


def _found(finding: Finding) -> str:
    times = "" if finding.count == 1 else " twice" if finding.count == 2 else f" {finding.count} times"
    where = f" at {finding.where}" if finding.where else ""
    return f"{finding.name.replace('_', ' ')}{times}{where}"


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _at_hold(lanes: list[Lane]) -> str:
    found = [str(lane.n) for lane in lanes if lane.at_hold]
    if not found or len(lanes) == 1:
        return ""
    return f"attempt{'s' if len(found) > 1 else ''} {_and(found)}"


def _tried(attempts: int) -> str:
    return "one attempt" if attempts == 1 else f"{attempts} attempts" if attempts else "no attempt"


def _tokens(call: Call) -> tuple[list[TokenRow], datetime | None]:
    """What was used, by class, at the prices that the call's revision holds for the moment it started."""
    media = Media(
        audio_input=call.audio_input_tokens,
        image_input=call.image_input_tokens,
        audio_output=call.audio_output_tokens,
        image_output=call.image_output_tokens,
        characters=call.characters,
        seconds=call.seconds,
        images=call.images,
    )
    used = Tokens(
        input=call.input_tokens,
        cached=call.cached_input_tokens,
        cache_write=call.cache_write_tokens,
        output=call.output_tokens,
        reasoning=call.reasoning_tokens,
        media=media if media != Media() else None,
    )
    if not used.input and not used.output and used.media is None:
        return [], None
    found = _prices(call)
    prices, since = (found[0].of_tier(call.service_tier), found[1]) if found else (None, None)
    rows = [
        TokenRow(
            words.TOKEN_CLASSES[part.token_class],
            part.amount,
            None if prices is None else part.price,
            None if prices is None else Fraction(part.amount * part.price, MILLION),
            part.token_class in words.UNITS,
        )
        for part in (prices or _NO_PRICES).parts(used)
    ]
    return rows, since


def _prices(call: Call) -> tuple[Prices, datetime] | None:
    document = (
        Revision.objects.filter(number=call.revision).values_list("document", flat=True).first()
        if call.revision and call.model
        else None
    )
    if not document:
        return None
    entry = next((entry for entry in decode_document(document).models if entry.slug == call.model), None)
    moment = call.started_at.timestamp()
    prices = PriceBook(entry.prices).at(moment) if entry else None
    if entry is None or prices is None:
        return None
    since = max(row.since for row in entry.prices if row.since <= moment)
    return prices, datetime.fromtimestamp(since, UTC)


def _other_cost(call: Call, tokens: list[TokenRow]) -> int:
    """What was charged beside the answer's tokens: failed attempts, a hold charged whole."""
    return call.cost_nano - ceil(sum((row.cost_nano or Fraction(0) for row in tokens), Fraction(0)))


def _parts(call: Call) -> list[Part]:
    if not call.total_us or call.upstream_us is None:
        return []
    upstream = min(call.upstream_us, call.total_us)
    queue = min(call.queue_us, call.total_us - upstream)
    ours = call.total_us - upstream - queue
    found, x = [], 0
    for name, css, length in (
        ("This console, with its pauses" if call.retry_count else "This console", "ours", ours),
        ("Queue", "queue", queue),
        ("Provider, with the network", "provider", upstream),
    ):
        width = WIDTH * length // call.total_us
        if length:
            width = max(width, 3)
        found.append(Part(name, css, length, x, width))
        x += width
    return found


def _links(reader: Reader, told: CallStory) -> dict[str, str]:
    call = told.call
    links = {
        "project": reader.link("access.project", told.project.pk) if told.project else "",
        "key": reader.link("access.servicekey", told.key.pk) if told.key else "",
        "revision": reader.link("serving.revision", call.revision) if call.revision else "",
    }
    route = Route.objects.filter(slug=call.route).values_list("pk", flat=True).first() if call.route else None
    links["route"] = reader.link("providers.route", route) if route else ""
    version = (
        ModelConfig.objects.filter(model__slug=call.model, version=call.model_version)
        .values_list("pk", "model_id")
        .first()
        if call.model and call.model_version
        else None
    )
    links["model"] = reader.link("providers.model", version[1]) if version else ""
    prompts = (
        dict(
            Prompt.objects.filter(slug=call.prompt_name)
            .filter(Q(project=call.project_id) | Q(project=None))
            .values_list("slug", "pk")
        )
        if call.prompt_name
        else {}
    )
    if prompts:
        links["prompt"] = reader.link("prompts.prompt", prompts[call.prompt_name])
    if refusing := _REFUSING.match(call.error_message) if call.status == Call.REFUSED else None:
        budget = Budget.objects.filter(slug=refusing[1]).values_list("pk", flat=True).first()
        links["refusing"] = reader.link("budgets.budget", budget) if budget else ""
    if call.charged_at_hold and may(reader.request, "usage.correct", call.project_id):
        links["correct"] = reader.link("usage.call", call.pk).removesuffix("change/") + "correct/"
    return links


def _neighbours(call: Call) -> str:
    """Address of the calls of the same project within five minutes on either side."""
    around = timedelta(minutes=5)
    period = Period(CUSTOM, call.started_at - around, call.started_at + around)
    return reverse("dashboards:calls") + Filters(period=period, project=call.project_id).query()
