"""Changes to channels: each is one transaction with one audit event. Secrets go in and do not come out."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import transaction
from django.utils import timezone

from llmops.access.models import Project
from llmops.access.selectors import powers_of_actor
from llmops.alerts.channels import Message, channel_named
from llmops.alerts.models import SEVERITIES, Channel
from llmops.alerts.sealed import secret_identity
from llmops.audit.services import record_about
from llmops.base import drafts
from llmops.base.clock import database_now
from llmops.base.master_keys import usable_for_sealing
from llmops.base.transitions import compare_and_set
from llmops.core.actors import Actor
from llmops.core.errors import Conflict, InvalidRequest, PermissionDenied
from llmops.core.ids import uuid7
from llmops.core.redaction import redact_text


def new_secret() -> str:
    # Imported where it is used: it brings an HTTP client, which a process that serves pages need not load.
    from llmops.tools.executors import webhook

    return webhook.new_secret()


def url_problem(url: str, *, allow_private: bool) -> str | None:
    from llmops.tools.executors import webhook

    return webhook.url_problem(url, allow_private=allow_private)


CHANGEABLE = (
    "project", "severities", "addresses", "url", "allow_private_network", "after_minutes", "quiet_from", "quiet_to",
    "timezone", "enabled",
)  # fmt: skip
_TOLD = ("slug", "kind", *CHANGEABLE)
_MOST_ADDRESSES, _LONGEST_AFTER = 50, 7 * 24 * 60
#: ``whsec_`` and 24 bytes in base64, the least that Standard Webhooks allows.
_SHORTEST_SECRET = 6 + 32


def create_channel(
    actor: Actor, *, slug: str, kind: str, project: Project | None = None, secret: str = "", **given: Any
) -> tuple[Channel, str]:
    """A channel, and the secret that signs what its webhook gets: it is returned now or never. Empty for other kinds.

    ``url`` of a chat is sealed as a whole, because whoever knows it may write there; it may be given as ``secret`` as well. For a
    webhook ``secret`` is what signs, made anew if there is none. Raises ``InvalidRequest``, ``Conflict``
    for a taken name, ``PermissionDenied`` where a private network is allowed by who may not.
    """
    known = channel_named(kind)
    with transaction.atomic():
        channel = Channel(slug=slug, kind=kind, project=project, severities=[name for name, _ in SEVERITIES])
        drafts.assign(channel, given, allowed=CHANGEABLE)
        if known.sealing == "address" and secret:
            channel.url = secret
        _take_secret(channel, before="")
        if known.sealing == "signs":
            secret = _signing(secret) if secret else new_secret()
            _seal(channel, secret)
        _checked(actor, channel)
        drafts.inserted(channel)
        record_about(actor, channel, action="alert_channel.created", after=drafts.values(channel, _TOLD))
    return channel, secret if known.sealing == "signs" else ""


def update_channel(actor: Actor, *, channel: Channel, **changes: Any) -> Channel:
    with transaction.atomic():
        stored = _in_use(channel)
        before = drafts.values(stored, _TOLD)
        drafts.assign(stored, changes, allowed=CHANGEABLE)
        _take_secret(stored, before=before["url"])
        _checked(actor, stored, before=before)
        stored.save()
        record_about(
            actor, stored, action="alert_channel.changed", before=before, after=drafts.values(stored, _TOLD)
        )
    return stored


def rotate_secret(actor: Actor, *, channel: Channel) -> str:
    """A new secret that signs what the webhook gets; it is returned now or never. The old one ends at once."""
    with transaction.atomic():
        stored = _in_use(channel)
        if channel_named(stored.kind).sealing != "signs":
            raise Conflict(f"{stored.slug} signs nothing.")
        secret = new_secret()
        _seal(stored, secret)
        stored.save(update_fields=["sealed", "updated_at"])
        record_about(actor, stored, action="alert_channel.signing_rotated")
    return secret


def replace_secret(actor: Actor, *, channel: Channel, secret: str) -> Channel:
    """Another secret, which somebody knows already: what signs a webhook (``whsec_<base64>``), or the address of a chat. The old one
    ends at once. Raises ``Conflict`` for a kind that has none."""
    with transaction.atomic():
        stored = _in_use(channel)
        before = drafts.values(stored, _TOLD)
        sealing = channel_named(stored.kind).sealing
        if sealing == "signs":
            _seal(stored, _signing(secret))
        elif sealing == "address":
            stored.url = secret
            _take_secret(stored, before=before["url"])
            _checked(actor, stored, before=before)
        else:
            raise Conflict(f"{stored.slug} has no secret.")
        stored.save(update_fields=["sealed", "url", "updated_at"])
        record_about(actor, stored, action="alert_channel.secret_replaced")
    return stored


def restore_channel(actor: Actor, *, channel: Channel) -> Channel:
    with transaction.atomic():
        stored = drafts.locked(channel)
        if not compare_and_set(stored, expect={"archived_at__isnull": False}, change={"archived_at": None}):
            raise Conflict(f"{stored.slug} is not archived.")
        record_about(
            actor,
            stored,
            action="alert_channel.restored",
            before={"archived": True},
            after={"archived": False},
        )
    return stored


def archive_channel(actor: Actor, *, channel: Channel) -> Channel:
    with transaction.atomic():
        stored = _in_use(channel)
        compare_and_set(stored, expect={"archived_at": None}, change={"archived_at": timezone.now()})
        record_about(
            actor, stored, action="alert_channel.archived", before={"archived": False}, after={"archived": True}
        )  # fmt: skip
    return stored


def try_channel(actor: Actor, *, channel: Channel) -> str:
    """Send a message that says that it is a test. What went wrong, or nothing; it is on record either way."""
    now = database_now()
    message = Message(
        id=str(uuid7()), event="opened", incident="", rule="test", subject="test", project="", severity="info",
        title="This is a test: nothing is wrong", says=f"{actor.name} tried the channel {channel.slug}.", opened_at=now,
        resolved_at=None, state="open", acknowledged_by="", runbook="", sent_at=now,
    )  # fmt: skip
    problem = ""
    try:
        channel_named(channel.kind).send(channel, [message])
    except Exception as fault:
        problem = redact_text(f"{type(fault).__name__}: {fault}")[:300]
    with transaction.atomic():
        record_about(actor, channel, action="alert_channel.tested", after={"problem": problem})
    return problem


def _in_use(channel: Channel) -> Channel:
    stored = drafts.locked(channel)
    if stored.archived_at is not None:
        raise Conflict(f"{stored.slug} is archived.")
    return stored


def _seal(channel: Channel, secret: str) -> None:
    channel.sealed = usable_for_sealing().seal(secret, identity=secret_identity(channel.pk))


def _signing(secret: str) -> str:
    from llmops.tools.executors import webhook

    try:
        webhook.signature(secret, message_id="", timestamp=0, body=b"")
    except ValueError as wrong:
        raise InvalidRequest(f"secret: {wrong}.", param="secret") from None
    if len(secret) < _SHORTEST_SECRET:
        raise InvalidRequest("secret: 24 bytes of chance or more, as whsec_<base64>.", param="secret")
    return secret


def _take_secret(channel: Channel, *, before: str) -> None:
    """The address of a chat moves into the seal; the host is what people see of it."""
    if (
        channel_named(channel.kind).sealing != "address"
        or not channel.url
        or (before and channel.url == before)
    ):
        # As it is shown: nothing else was typed.
        return
    given = channel.url
    if problem := url_problem(given, allow_private=channel.allow_private_network):
        raise InvalidRequest(f"url: {problem.replace('on the tool', 'here')}.", param="url")
    _seal(channel, given)
    channel.url = str(urlsplit(given).hostname)


def _checked(actor: Actor, channel: Channel, *, before: dict[str, Any] | None = None) -> None:
    kind = channel_named(channel.kind)
    levels = [name for name, _ in SEVERITIES]
    if (
        not isinstance(channel.severities, list)
        or not channel.severities
        or set(channel.severities) - set(levels)
    ):
        raise InvalidRequest(f"severities: at least one of {', '.join(levels)}.", param="severities")
    _check_addresses(channel)
    if kind.name == "webhook" and (
        problem := url_problem(channel.url, allow_private=channel.allow_private_network)
    ):
        raise InvalidRequest(f"url: {problem.replace('on the tool', 'here')}.", param="url")
    if kind.sealing == "address" and not channel.sealed:
        raise InvalidRequest("url: the address that the chat gave for its incoming webhook.", param="url")
    if channel.after_minutes > _LONGEST_AFTER:
        raise InvalidRequest("after_minutes: a week (10080) at most.", param="after_minutes")
    if (channel.quiet_from is None) != (channel.quiet_to is None):
        raise InvalidRequest("quiet_to: quiet hours need both a beginning and an end.", param="quiet_to")
    for name in ("quiet_from", "quiet_to"):
        if (getattr(channel, name) or 0) >= 24 * 60:
            raise InvalidRequest(f"{name}: minutes after midnight, below 1440.", param=name)
    try:
        ZoneInfo(channel.timezone)
    except (ValueError, KeyError, OSError):
        raise InvalidRequest("timezone: a name such as Europe/Berlin is needed.", param="timezone") from None
    allowed_before = bool(before and before["allow_private_network"])
    moved = before is None or before["url"] != channel.url or not allowed_before
    if channel.allow_private_network and moved and not powers_of_actor(actor).allow("provider.manage", None):
        raise PermissionDenied(
            "allow_private_network: only who may manage providers everywhere lets the console speak to a private network.",
            param="allow_private_network",
        )
    drafts.checked(channel)


def _check_addresses(channel: Channel) -> None:
    if channel.kind != "mail":
        channel.addresses = []
        return
    channel.url = ""
    if not isinstance(channel.addresses, list) or not 0 < len(channel.addresses) <= _MOST_ADDRESSES:
        raise InvalidRequest(f"addresses: one to {_MOST_ADDRESSES} e-mail addresses.", param="addresses")
    for address in channel.addresses:
        try:
            validate_email(address)
        except ValidationError:
            raise InvalidRequest(
                f"addresses: {str(address)[:80]!r} is no e-mail address.", param="addresses"
            ) from None
