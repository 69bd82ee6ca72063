"""``manage.py rotate``: the rotation of a provider key, step by step, from a shell or a job of one's own."""

from __future__ import annotations

import sys
import time
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from llmops.core.actors import command_actor
from llmops.core.errors import ConsoleError, InvalidRequest
from llmops.providers import services
from llmops.providers.draining import remaining
from llmops.providers.models import Credential, Rotation
from llmops.providers.models.rotations import DRAINING, OPEN

LOOK_S = 1.0


class Command(BaseCommand):
    help = (
        "Rotate a provider key: begin (tries the new key, changes nothing if it does not work), activate, show, finish, "
        "take-back, cancel. KEY is provider/name, such as openai/primary."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        steps = parser.add_subparsers(dest="step", required=True, metavar="STEP")
        begin = steps.add_parser("begin", help="try a new key and stage it")
        begin.add_argument("key", metavar="KEY")
        where = begin.add_mutually_exclusive_group(required=True)
        where.add_argument("--secret-stdin", action="store_true", help="read the new key from standard input")
        where.add_argument(
            "--reference", help="where it is: env:NAME, file:/path, vault:path#field, aws:name"
        )
        begin.add_argument(
            "--keep-minutes", type=int, default=15, help="keep the old key at least so long (15)"
        )
        begin.add_argument(
            "--deadline-hours", type=int, default=24, help="revoke the old key then at the latest (24)"
        )
        begin.add_argument("--by-hand", action="store_true", help="do not revoke the old key by itself")
        begin.add_argument("--unprobed", default="", metavar="WHY", help="stage it without trying it")
        begin.add_argument("--activate", action="store_true", help="put it into use as well, if it works")
        begin.add_argument("--reason", default="")
        for name, text in (
            ("activate", "use the new key; the old one drains"),
            ("finish", "revoke the old key; while something uses it this takes --reason"),
            ("take-back", "put the old key back into use; takes --reason"),
            ("cancel", "give up a rotation whose new key is not in use"),
        ):
            step = steps.add_parser(name, help=text)
            step.add_argument("key", metavar="KEY")
            step.add_argument("--reason", default="")
        show = steps.add_parser("show", help="where a rotation stands, and what still uses the old key")
        show.add_argument("key", metavar="KEY")
        show.add_argument("--wait", type=float, default=0, metavar="SECONDS", help="wait until it is over")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            self._do(options)
        except ConsoleError as refused:
            raise CommandError(refused.message) from None

    def _do(self, options: dict[str, Any]) -> None:
        actor, step = command_actor("rotate"), options["step"]
        if step == "begin":
            rotation = services.begin_rotation(
                actor,
                credential=_key(options["key"]),
                **_where(options),
                keep_minutes=options["keep_minutes"],
                deadline_hours=options["deadline_hours"],
                by_itself=not options["by_hand"],
                unprobed_reason=options["unprobed"],
                reason=options["reason"],
            )
            if options["activate"]:
                rotation = services.activate_rotation(actor, rotation=rotation, reason=options["reason"])
            self._tell(rotation)
            return
        rotation = _rotation(options["key"], ended=step == "show")
        if step == "show":
            self._show(rotation, options["wait"])
            return
        changes: dict[str, Any] = {
            "activate": services.activate_rotation,
            "finish": services.finish_rotation,
            "take-back": services.return_rotation,
            "cancel": services.cancel_rotation,
        }
        self._tell(changes[step](actor, rotation=rotation, reason=options["reason"]))

    def _show(self, rotation: Rotation, seconds: float) -> None:
        over = time.monotonic() + seconds
        self._tell(rotation)
        while rotation.state in OPEN and time.monotonic() < over:
            time.sleep(LOOK_S)
            before = rotation.state
            rotation.refresh_from_db()
            if rotation.state != before:
                self._tell(rotation)
        if seconds and rotation.state in OPEN:
            raise CommandError(f"It is not over after {seconds:g} s: {rotation.get_state_display().lower()}.")

    def _tell(self, rotation: Rotation) -> None:
        self.stdout.write(f"{rotation}: {rotation.get_state_display()}")
        if rotation.probe_result:
            self.stdout.write(f"  {rotation.probe_result}")
        if rotation.state == DRAINING:
            self.stdout.write(f"  still used: {remaining(rotation).in_words()}")
        if rotation.outcome:
            self.stdout.write(f"  {rotation.outcome}")


def _key(text: str) -> Credential:
    provider, _, name = text.partition("/")
    found = Credential.objects.filter(provider__slug=provider, name=name).first()
    if found is None:
        raise InvalidRequest(f"There is no provider key {text!r}. Write it as provider/name.")
    return found


def _rotation(text: str, *, ended: bool) -> Rotation:
    """The rotation under way that ``text`` (the old or the new key) takes part in; ``ended``: or else its last one."""
    key = _key(text)
    found = Rotation.objects.filter(old=key) | Rotation.objects.filter(new=key)
    found = found.select_related("provider", "old", "new").order_by("-created_at")
    rotation = found.filter(state__in=OPEN).first() or (found.first() if ended else None)
    if rotation is None:
        raise InvalidRequest(f"{text} is not being rotated. Begin with: rotate begin {text} --secret-stdin")
    return rotation


def _where(options: dict[str, Any]) -> dict[str, Any]:
    if options["secret_stdin"]:
        return {"secret": sys.stdin.readline().strip()}
    source, separator, reference = options["reference"].partition(":")
    if not separator:
        raise InvalidRequest(
            "--reference: write where the key is, such as env:OPENAI_API_KEY or vault:kv/openai#key."
        )
    return {"source": source, "reference": reference}
