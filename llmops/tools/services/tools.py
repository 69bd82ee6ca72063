"""Changes to tools: each is one transaction with one audit event. A version holds for what is proposed from then on."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import msgspec
from django.db import transaction
from django.db.models import Max
from django.utils import timezone

from llmops.access.models import Project
from llmops.access.selectors import powers_of_actor
from llmops.audit.services import record_of
from llmops.base import drafts
from llmops.base.master_keys import usable_for_sealing
from llmops.base.transitions import compare_and_set
from llmops.core.actors import Actor
from llmops.core.digests import canonical_json, digest
from llmops.core.errors import Conflict, InvalidRequest, PermissionDenied
from llmops.core.ids import uuid7
from llmops.tools import rules, wording
from llmops.tools.executors import Job, Outcome, executor_named
from llmops.tools.models import Tool, ToolVersion
from llmops.tools.sealed import secret_identity, webhook_secret

#: Names that mean something else to those who call tools.
RESERVED = frozenset({"wait_for_action"})


def create_tool(
    actor: Actor, *, project: Project, slug: str, definition: Mapping[str, Any], note: str = ""
) -> Tool:
    """A tool with its first version. Raises ``InvalidRequest`` with the path of what is wrong, ``Conflict`` for a taken name."""
    kept = checked_definition(definition)
    if slug in RESERVED:
        raise InvalidRequest(f"slug: {slug} is what MCP clients ask what became of a call.", param="slug")
    _refuse_inside(actor, kept, {})
    with transaction.atomic():
        if project.archived_at is not None:
            raise InvalidRequest(f"project: {project.slug} is archived.", param="project")
        if Tool.objects.filter(project=project, slug=slug).exists():
            raise Conflict(f"slug: there is a tool {slug!r} in {project.slug} already.", param="slug")
        tool = Tool(project=project, slug=slug)
        drafts.checked(tool)
        drafts.inserted(tool)
        _refuse_same_end_for_less(actor, project.pk, kept, {})
        version = _add(actor, tool, number=1, definition=kept, note=note)
        record_of(
            actor,
            tool,
            action="tool.created",
            after={"slug": slug, "project": project.slug, **_told(version)},
            reason=note,
        )
    return tool


def add_version(actor: Actor, *, tool: Tool, definition: Mapping[str, Any], note: str = "") -> Tool:
    """The next version, which holds for what is proposed from now on. Without a difference nothing is written."""
    kept = checked_definition(definition)
    with transaction.atomic():
        stored = in_use(tool)
        current = stored.current
        if current is not None and current.digest == digest(kept):
            return stored
        _refuse_inside(actor, kept, current.definition if current else {})
        _refuse_unsigned(stored, kept)
        if current is not None:
            _refuse_looser(actor, stored.project_id, current.definition, kept, stored.slug)
        _refuse_same_end_for_less(actor, stored.project_id, kept, current.definition if current else {})
        number = int(stored.versions.aggregate(Max("number"))["number__max"] or 0) + 1
        version = _add(actor, stored, number=number, definition=kept, note=note)
        was, now = drafts.difference(_told(current) if current else {}, _told(version))
        changes = wording.differences(current.definition if current else {}, kept)
        record_of(
            actor,
            stored,
            action="tool.version_added",
            before=was,
            after={**now, "changes": changes[:40]},
            reason=note,
        )
    return stored


def pause_tool(actor: Actor, *, tool: Tool, reason: str = "") -> Tool:
    """Nothing is proposed and nothing begun until it is resumed; what waits for approval keeps waiting."""
    with transaction.atomic():
        stored = in_use(tool)
        change = {"paused_at": timezone.now(), "pause_reason": reason.strip()[:300]}
        if not compare_and_set(stored, expect={"paused_at": None}, change=change):
            raise Conflict(f"{stored.slug} is paused already.")
        record_of(
            actor,
            stored,
            action="tool.paused",
            before={"paused": False},
            after={"paused": True},
            reason=reason,
        )
    return stored


def resume_tool(actor: Actor, *, tool: Tool, reason: str = "") -> Tool:
    with transaction.atomic():
        stored = drafts.locked(tool)
        if not compare_and_set(
            stored, expect={"paused_at__isnull": False}, change={"paused_at": None, "pause_reason": ""}
        ):
            raise Conflict(f"{stored.slug} is not paused.")
        record_of(
            actor,
            stored,
            action="tool.resumed",
            before={"paused": True},
            after={"paused": False},
            reason=reason,
        )
    return stored


def archive_tool(actor: Actor, *, tool: Tool) -> Tool:
    """Put a tool away. Refused while calls of it wait or are under way."""
    from llmops.tools.models import Action

    with transaction.atomic():
        stored = in_use(tool)
        waiting = Action.objects.filter(
            tool=stored, state__in=[Action.WAITING, Action.APPROVED, Action.CLAIMED]
        ).count()
        if waiting:
            raise Conflict(
                f"{stored.slug} has {waiting} actions that are not over. Pause it, and decide them first."
            )
        compare_and_set(stored, expect={"archived_at": None}, change={"archived_at": timezone.now()})
        record_of(actor, stored, action="tool.archived", before={"archived": False}, after={"archived": True})
    return stored


def unarchive_tool(actor: Actor, *, tool: Tool) -> Tool:
    with transaction.atomic():
        stored = drafts.locked(tool)
        if not compare_and_set(stored, expect={"archived_at__isnull": False}, change={"archived_at": None}):
            raise Conflict(f"{stored.slug} is not archived.")
        record_of(actor, stored, action="tool.restored", before={"archived": True}, after={"archived": False})
    return stored


def rotate_secret(actor: Actor, *, tool: Tool) -> str:
    """A new secret that signs what the tool's webhook gets; it is returned now or never. The old one ends at once."""
    # It comes with a client of HTTP, as what an executor needs does.
    from llmops.tools.executors.webhook import new_secret

    with transaction.atomic():
        stored = in_use(tool)
        plain = new_secret()
        had = bool(stored.sealed)
        stored.sealed = usable_for_sealing().seal(plain, identity=secret_identity(stored.pk))
        stored.secret_set_at = timezone.now()
        stored.save(update_fields=["sealed", "secret_set_at", "updated_at"])
        record_of(
            actor,
            stored,
            action="tool.signing_rotated",
            before={"had_one": had},
            after={"set_at": stored.secret_set_at},
        )
    return plain


def call_as_dry_run(actor: Actor, *, tool: Tool, arguments: Any) -> Outcome:
    """Call the tool with ``dry_run``. Only for tools whose definition says that they know it: another would really do it."""
    version = tool.current
    if version is None or tool.archived_at is not None:
        raise Conflict(f"{tool.slug} is not in use.")
    definition = rules.read_definition(version.definition)
    if not definition.dry_run:
        raise Conflict(
            f"{tool.slug} does not say that it knows dry runs, so a test could really do it. Have the service look at "
            '"dry_run", then say so in the definition.'
        )
    given = rules.checked_arguments(definition, arguments)
    executor = executor_named(definition.executor)
    key = str(uuid7())
    outcome = executor.run(
        Job(
            key=key,
            tool=tool.slug,
            version=version.number,
            arguments=given,
            digest=digest({"dry_run": key, "arguments": given}),
            timeout_s=definition.timeout_s,
            settings=definition.settings,
            at=int(time.time()),
            secret=webhook_secret(tool) if executor.signs else "",
            risk=rules.classify(definition, given).risk,
            proposed_by=actor.name,
            dry_run=True,
        )
    )
    with transaction.atomic():
        told = {"version": version.number, "state": outcome.state, "message": outcome.message}
        record_of(actor, tool, action="tool.tested", after=told)
    return outcome


def checked_definition(value: Mapping[str, Any]) -> dict[str, Any]:
    """The definition as it is kept, with its executor's settings checked."""
    found = rules.read_definition(value)
    if found.execution == rules.SERVICE:
        if found.executor or found.settings:
            raise InvalidRequest(
                "definition.executor: the service carries this tool out itself, so leave executor and settings out.",
                param="definition.executor",
            )
        return _plain(found)
    settings = executor_named(found.executor).check(found.settings)
    return _plain(msgspec.structs.replace(found, settings=settings))


def _refuse_inside(actor: Actor, wanted: Mapping[str, Any], present: Mapping[str, Any]) -> None:
    """An address on the console's own network is for those who may point it there for all projects: what answers is shown."""
    settings = wanted["settings"]
    if not settings.get("allow_private_network") or settings == present.get("settings"):
        return
    if not powers_of_actor(actor).allow("provider.manage", None):
        name = "definition.settings.allow_private_network"
        raise PermissionDenied(
            f"{name}: only who may manage providers in the whole organisation can let a tool reach private networks. Ask one "
            "of them, or use an address on the internet.",
            param=name,
        )


def _refuse_unsigned(tool: Tool, wanted: Mapping[str, Any]) -> None:
    """A tool that could be called and could not any more. One that is new has nothing to sign with, and is called when it has."""
    if not wanted["executor"] or tool.sealed or tool.current is None:
        return
    if executor_named(wanted["executor"]).signs and tool.current.definition["executor"] != wanted["executor"]:
        raise InvalidRequest(
            "definition.executor: what this sends is signed, and the tool has no secret for that. Make one first (New signing secret on "
            "its page, or rotate-secret over the API), and give it to the service.",
            param="definition.executor",
        )


def _refuse_looser(
    actor: Actor, project_id: UUID, present: Mapping[str, Any], wanted: Mapping[str, Any], name: str
) -> None:
    """Whoever may define a tool does not thereby do without those who must agree to its calls."""
    why = rules.looser(rules.read_definition(present), rules.read_definition(wanted))
    if why and not powers_of_actor(actor).allow("action.approve", project_id):
        raise PermissionDenied(
            f"definition: this asks for less agreement than {name} does: {why}. Only who may approve actions in this project "
            "as well can decide that.",
            param="definition",
        )


def _refuse_same_end_for_less(
    actor: Actor, project_id: UUID, wanted: Mapping[str, Any], present: Mapping[str, Any]
) -> None:
    """What a call ends at is the same under whatever name. Of each tool that ends there, or once did, the newest version that
    did counts, also when the tool was put away or points elsewhere since. A tool that ends there already asks for what
    somebody who may agreed to."""
    if not wanted["executor"]:
        return
    executor = executor_named(wanted["executor"])
    place = executor.end(wanted["settings"])
    if present.get("executor") == executor.name and executor.end(present["settings"]) == place:
        return
    others = ToolVersion.objects.filter(definition__executor=executor.name)
    if not executor.shared:
        others = others.filter(tool__project_id=project_id)
    seen: set[UUID] = set()
    for version in others.select_related("tool").order_by("-number"):
        if version.tool_id in seen or executor.end(version.definition["settings"]) != place:
            continue
        seen.add(version.tool_id)
        own = version.tool.project_id == project_id
        name = f"the tool {version.tool.slug}" if own else "a tool of another project"
        _refuse_looser(
            actor, project_id, version.definition, wanted, f"{name} with the same {executor.ends_at}"
        )


def _plain(found: rules.Definition) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(found)
    canonical_json(plain)
    return plain


def in_use(tool: Tool) -> Tool:
    """The stored tool, locked. Raises ``Conflict`` when it is archived."""
    stored = drafts.locked(tool)
    if stored.archived_at is not None:
        raise Conflict(f"{stored.slug} is archived. Restore it first.")
    return stored


def _add(actor: Actor, tool: Tool, *, number: int, definition: dict[str, Any], note: str) -> ToolVersion:
    version = ToolVersion(
        tool=tool,
        number=number,
        definition=definition,
        note=note,
        digest=digest(definition),
        created_by=actor.name[:200],
    )
    drafts.checked(version, lines=("definition",))
    drafts.inserted(version)
    tool.current = version
    tool.save(update_fields=["current", "updated_at"])
    return version


def _told(version: ToolVersion) -> dict[str, Any]:
    return {
        "version": version.number,
        "risk": version.definition["risk"],
        "executor": version.definition["executor"] or "the service",
        "digest": version.digest,
    }
