"""What has to be done for prompts and tools, whose versions never change. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from console.declarative.present import Present
from console.declarative.schema import Entry
from console.declarative.steps import BRING_BACK, CHANGE, CREATE, Planner, Step, shown
from llmops.core.digests import digest
from llmops.prompts.content import digest_of
from llmops.prompts.wording import differences as prompt_differences
from llmops.tools.wording import differences as tool_differences


def plan_prompt(planner: Planner, entry: Entry, present: Present | None) -> Iterator[Step]:
    if entry.values["project"] is not None:
        planner.refer(entry, "project", "project", entry.values["project"])
    wanted, known = entry.values["versions"], present.values["versions"] if present else []
    for index, (ours, theirs) in enumerate(zip(wanted, known, strict=False)):
        if digest_of(ours["content"]) != digest_of(theirs["content"]):
            words = "; ".join(prompt_differences(theirs["content"], ours["content"]))
            planner.bad(
                entry,
                "versions",
                f"version {index + 1} is recorded otherwise ({words[:300]}), and versions never change; put yours at the end "
                "of the list",
            )
    newest = max(len(wanted), len(known))
    for label, number in entry.values["labels"].items():
        if number > newest:
            planner.bad(entry, "labels", f"{label} means version {number}, and there are {newest}")
    first = 1 if present is None else 0
    if present is None:
        about = {name: entry.values[name] for name in ("slug", "project", "description")}
        yield planner.step(CREATE, entry, {**about, **wanted[0]}, ("version 1",))
    else:
        if present.gone:
            yield planner.step(BRING_BACK, entry, {}, ())
        if entry.values["description"] != present.values["description"]:
            words = f"description: {shown('', present.values['description'])} → {shown('', entry.values['description'])}"
            yield planner.step(CHANGE, entry, {"description": entry.values["description"]}, (words,))
    before = known[-1]["content"] if known else wanted[0]["content"]
    for index, version in list(enumerate(wanted))[max(first, len(known)) :]:
        changes = prompt_differences(before, version["content"])
        yield planner.step(CHANGE, entry, {"version": version}, (f"version {index + 1}", *changes))
        before = version["content"]
    labels: dict[str, int] = present.values["labels"] if present else {}
    for name in sorted({**labels, **entry.values["labels"]}):
        was, now = labels.get(name), entry.values["labels"].get(name)
        if was != now:
            words = (
                f"label {name}: {f'version {was}' if was else 'none'} → {f'version {now}' if now else 'none'}"
            )
            yield planner.step(CHANGE, entry, {"label": name, "number": now}, (words,))


def plan_tool(planner: Planner, entry: Entry, present: Present | None) -> Iterator[Step]:
    definition = entry.values["definition"]
    if present is None or present.gone:
        planner.refer(entry, "project", "project", entry.values["project"])
    if definition["executor"] == "webhook" and not (present and present.values["signs"]):
        planner.notes.append(
            f"tool {entry.key}: what its webhook gets is not signed yet. Make a secret under Tools, and give it to the service."
        )
    if present is None:
        yield planner.step(CREATE, entry, dict(entry.values), tuple(tool_differences({}, definition)))
        return
    if present.gone:
        yield planner.step(BRING_BACK, entry, {}, ())
    if digest(definition) != digest(present.values["definition"]):
        words = tool_differences(present.values["definition"], definition)
        yield planner.step(CHANGE, entry, {"definition": definition}, tuple(words))
