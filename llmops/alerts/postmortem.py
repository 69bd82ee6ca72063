"""A text to write afterwards, filled with what is known: Markdown, without blame."""

from __future__ import annotations

from llmops.alerts import runbooks
from llmops.alerts.behind import Behind
from llmops.alerts.models import Incident, Notification
from llmops.core.appearance import written_out


def _safe(text: str) -> str:
    """Names were given by services and providers: none of them is mark-up here."""
    found = written_out(text)
    for character in "\\`*_[]<>|#":
        found = found.replace(character, "\\" + character)
    return found


def written(incident: Incident, calls: Behind | None = None) -> str:
    """The incident's postmortem as far as the timeline and its calls tell it; what people have to add is asked for.

    ``calls``: None for who may not read figures, and where it is about no calls.
    """
    end = incident.resolved_at
    entries = list(incident.entries.all())
    # What it says of itself is of its last moment, when it was nearly well.
    began = next((entry for entry in entries if entry.kind == "opened"), None)
    lasted = f"{(end - incident.opened_at).total_seconds() / 60:,.0f} min" if end else "it is not over"
    # One that came back is nobody's again; who looked after it first is known all the same.
    taken = next((entry for entry in entries if entry.kind == "acknowledged"), None)
    acknowledged = (
        f"{(taken.at - incident.opened_at).total_seconds() / 60:,.0f} min after it began, by {_safe(taken.who)}"
        if taken
        else "by nobody"
    )
    lines = [
        f"# {_safe(incident.title)}",
        "",
        f"- Severity: {incident.severity}",
        f"- Began: {incident.opened_at:%Y-%m-%d %H:%M:%S} UTC",
        f"- Ended: {f'{end:%Y-%m-%d %H:%M:%S} UTC, {_safe(incident.resolved_by)}' if end else 'not yet'}",
        f"- Lasted: {lasted}",
        f"- Acknowledged: {acknowledged}",
        f"- Found by: rule {_safe(incident.rule.slug)}",
        f"- Came back: {incident.flaps} times",
    ]
    if incident.rule.runbook:
        lines.append(f"- Runbook: {_safe(runbooks.title_of(incident.rule.runbook))}")
    lines += [
        "",
        "## What happened",
        "",
        _safe(began.text if began else incident.says) or "(what callers noticed, in a sentence)",
        "",
        f"Worst figure: {incident.worst:,.2f} (bound {float(incident.facts.get('bound', 0)):,.2f}).",
        "",
        *_of_calls(calls),
        "## Timeline (UTC)",
        "",
        "| when | what | who |",
        "| --- | --- | --- |",
    ]
    lines += [
        f"| {entry.at:%Y-%m-%d %H:%M:%S} | {_safe(entry.text)} | {_safe(entry.who)} |" for entry in entries
    ]
    told = (
        incident.notifications.filter(state=Notification.SENT)
        .select_related("channel")
        .order_by("sent_at", "id")
    )
    lines += ["", "## Who was told", "", "| when | whom | of what | tries |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {one.sent_at:%Y-%m-%d %H:%M:%S} | {_safe(one.channel.slug)} | {one.get_event_display()} | {one.tries} |"
        for one in told
    ]
    asked = {
        "Impact": "Which callers noticed, and how; how much of which error budget is gone.",
        "Cause": "What made it possible, not who.",
        "What went well, what did not": "Was it found before callers told of it? Did the runbook help?",
        "What will be done": "One line each: what, who, until when.",
    }
    for title, question in asked.items():
        lines += ["", f"## {title}", "", f"_{question}_"]
    return "\n".join(lines) + "\n"


def _of_calls(calls: Behind | None) -> list[str]:
    if calls is None or not calls.carried:
        return []
    whole = calls.answered + calls.missed
    lines = [
        "## Calls",
        "",
        f"From {calls.start:%Y-%m-%d %H:%M} to {calls.end:%Y-%m-%d %H:%M} UTC: {whole:,} calls, of which {calls.missed:,} failed "
        f"({100 * calls.missed / whole:.1f} %). They cost ${calls.cost_nano / 1e9:,.2f}.",
        "",
        "| carried by | answered | failed |",
        "| --- | ---: | ---: |",
        *(
            f"| {_safe(one.model) or '(no target was left)'} | {one.answered:,} | {one.failed:,} |"
            for one in calls.carried
        ),
        "",
    ]
    if calls.failed:
        lines += [
            "| error | calls |",
            "| --- | ---: |",
            *(f"| {_safe(one.code)} | {one.calls:,} |" for one in calls.failed),
            "",
        ]
    return lines
