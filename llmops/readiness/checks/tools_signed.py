"""Tools that are carried out by a signed request have a secret to sign it with."""

from __future__ import annotations

from llmops.readiness.finding import SECURITY, Check, Finding, every
from llmops.tools.models import Tool
from llmops.tools.selectors import lacks_secret


def look() -> Finding:
    tools = Tool.objects.filter(archived_at=None).select_related("current", "project").order_by("slug")
    signed = [tool for tool in tools if tool.current and tool.current.definition["executor"] == "webhook"]
    bare = [f"{tool.slug} of {tool.project.slug}" for tool in signed if lacks_secret(tool)]
    return every(signed, bare, "tools with a webhook", "have no secret, so calls of them are refused")


CHECK = Check(
    "tools-signed",
    SECURITY,
    "Tools that are carried out by a signed request have a secret to sign it with",
    fix="Make a signing secret on the tool's page, and give it to the service that is called.",
    link="tools.tool",
    look=look,
)
