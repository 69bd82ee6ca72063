"""A text to write afterwards, filled with what is known: Markdown, without blame."""

from __future__ import annotations

from llmops.alerts import runbooks
from llmops.alerts.models import Incident
from llmops.core.texts import written_out


def _safe(text: str) -> str:
    """Names were given by services and providers: none of them is mark-up here."""
    found = written_out(text)
    for character in "\\`*_[]<>|#":
        found = found.replace(character, "\\" + character)
    return found


def written(incident: Incident) -> str:
    """The incident's postmortem as far as the timeline tells it; what people have to add is asked for."""
    end = incident.resolved_at
    lasted = f"{(end - incident.opened_at).total_seconds() / 60:,.0f} min" if end else "it is not over"
    acknowledged = (
        f"{(incident.acknowledged_at - incident.opened_at).total_seconds() / 60:,.0f} min after it began, by "
        f"{_safe(incident.acknowledged_by)}"
        if incident.acknowledged_at
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
        _safe(incident.says) or "(what callers noticed, in a sentence)",
        "",
        f"Worst figure: {incident.worst:,.2f} (bound {float(incident.facts.get('bound', 0)):,.2f}). Calls at last: {incident.calls:,}.",
        "",
        "## Timeline (UTC)",
        "",
        "| when | what | who |",
        "| --- | --- | --- |",
    ]
    lines += [
        f"| {entry.at:%Y-%m-%d %H:%M:%S} | {_safe(entry.text)} | {_safe(entry.who)} |"
        for entry in incident.entries.all()
    ]
    asked = {
        "Impact": "Which callers, how many calls, what it cost, how much of which error budget.",
        "Cause": "What made it possible, not who.",
        "What went well, what did not": "Was it found before callers told of it? Did the runbook help?",
        "What will be done": "One line each: what, who, until when.",
    }
    for title, question in asked.items():
        lines += ["", f"## {title}", "", f"_{question}_"]
    return "\n".join(lines) + "\n"
