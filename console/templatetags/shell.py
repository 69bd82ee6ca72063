"""The frame of every page: navigation, environment label, icons."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

from django import template
from django.conf import settings
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe
from django.utils.text import capfirst

from console import navigation

register = template.Library()

#: Drawn on a grid of 20 units with a stroke of 1.6.
ICONS = {
    "overview": '<path d="M3 16.5V10m4.7 6.5v-9m4.6 9v-5m4.7 5V4"/>',
    "calls": '<path d="M3 6.5h12.5M12.3 3.2l3.4 3.3-3.4 3.3M17 13.5H4.5m3.2-3.3-3.4 3.3 3.4 3.3"/>',
    "spend": '<path d="M3 16.5h14M5 13.5v-4M9 13.5v-7M13 13.5v-5.5M3.5 5.5l4-2.5 4 2 5-3"/>',
    "reconciliation": '<path d="M10 3.500v13M6 16.500h8M4 6.500h12M4 6.500 1.800 12h4.400L4 6.500Zm12 0L13.800 12h4.400L16 6.500Z"/>',
    "reliability": '<path d="M2.5 10.5h3.2l2-5.5 3.6 10 2.2-6.2 1 1.7h3"/>',
    "traffic": '<path d="M3.5 16V9.5M8 16V4.5M12.5 16v-5M17 16V7.5"/>',
    "quality": '<path d="m4 10.5 3.6 3.6L16 5.6"/><path d="M4 17h12.5"/>',
    "dataset": '<ellipse cx="10" cy="5" rx="6" ry="2.200"/><path d="M4 5v10c0 1.200 2.700 2.200 6 2.200s6-1 6-2.200V5M4 10c0 1.200 2.700 2.200 6 2.200s6-1 6-2.200"/>',
    "runs": '<path d="M4 5.5h6M4 10h8M4 14.5h5M14.5 12.2l2.3 2.3-2.3 2.3"/>',
    "alert": '<path d="M10 3 17.500 16.200H2.500L10 3Zm0 4.800v4M10 13.900h.01"/>',
    "bell": '<path d="M5.200 8.500a4.800 4.800 0 0 1 9.600 0c0 4.300 1.700 5.500 1.700 5.500h-13s1.700-1.200 1.700-5.500ZM8.400 16.500a1.800 1.800 0 0 0 3.200 0"/>',
    "rule": '<path d="M3 6.500h8m4 0h2M3 13.500h2m4 0h8"/><circle cx="13" cy="6.500" r="2"/><circle cx="7" cy="13.500" r="2"/>',
    "target": '<circle cx="10" cy="10" r="7"/><circle cx="10" cy="10" r="3.500"/><path d="M10 10h.01"/>',
    "jobs": '<path d="M16.5 8A7 7 0 1 0 17 10.8M16.8 3.8V8h-4.2M10 6.4V10l2.6 1.7"/>',
    "provider": '<rect x="3" y="3.5" width="14" height="5.2" rx="1.3"/><rect x="3" y="11.3" width="14" height="5.2" rx="1.3"/><path d="M6 6.1h.01M6 13.9h.01M9.5 6.1H14M9.5 13.9H14"/>',
    "lock": '<path d="M10 2.5l6 2.2v4.6c0 3.9-2.5 6.6-6 8.2-3.5-1.6-6-4.3-6-8.2V4.7zM10 8v3.5"/>',
    "rotation": '<path d="M4.5 8.5A6 6 0 0 1 15 6.2M15.5 11.5A6 6 0 0 1 5 13.8M15.2 3v3.4h-3.4M4.8 17v-3.4h3.4"/>',
    "credential": '<rect x="4" y="9" width="12" height="8" rx="1.6"/><path d="M6.8 9V6.4a3.2 3.2 0 0 1 6.4 0V9M10 12.2v1.8"/>',
    "model": '<path d="m10 2.8 6.3 3.6v7.2L10 17.2l-6.3-3.6V6.4L10 2.8ZM3.9 6.5 10 10l6.1-3.5M10 10v7"/>',
    "price": '<path d="M10.6 3H17v6.4l-7.5 7.5a1.3 1.3 0 0 1-1.9 0L3.1 12.4a1.3 1.3 0 0 1 0-1.9L10.6 3Z"/><path d="M13.6 6.4h.01"/>',
    "route": '<circle cx="4.6" cy="10" r="1.8"/><circle cx="15.4" cy="4.8" r="1.8"/><circle cx="15.4" cy="15.2" r="1.8"/><path d="M6.4 10h1.4c3.3 0 2.5-5.2 5.8-5.2M7.8 10c3.3 0 2.5 5.2 5.8 5.2"/>',
    "whatif": '<circle cx="4.600" cy="10" r="1.800"/><path d="M6.400 10h2.400M8.800 10c3 0 2.600-5 5.200-5h2.500M8.800 10c3 0 2.600 5 5.200 5M15.200 13.600l2.800 2.800m0-2.800-2.800 2.800"/>',
    "prompt": '<path d="M4.3 3.5h11.4c.7 0 1.3.6 1.3 1.3v7.4c0 .7-.6 1.3-1.3 1.3H9l-3.6 3v-3H4.3c-.7 0-1.3-.6-1.3-1.3V4.8c0-.7.6-1.3 1.3-1.3Z"/><path d="M6.5 7h7M6.5 10h4.5"/>',
    "policy": '<path d="M5.2 3h9.6c.7 0 1.2.5 1.2 1.2v11.6c0 .7-.5 1.2-1.2 1.2H5.2c-.7 0-1.2-.5-1.2-1.2V4.2C4 3.5 4.5 3 5.2 3Z"/><path d="m6.6 7.2.9.9 1.5-1.7M11 7.3h2.6M6.6 12.2l.9.9 1.5-1.7M11 12.3h2.6"/>',
    "revision": '<path d="m10 3 7 3.6-7 3.6-7-3.6L10 3Zm-7 7.2 7 3.6 7-3.6M3 13.6l7 3.6 7-3.6"/>',
    "ready": '<path d="M10 2.8l6 2.2v4.6c0 3.6-2.5 6.2-6 7.6-3.5-1.4-6-4-6-7.6V5z"/><path d="M7.4 9.9l1.9 1.9 3.4-3.6"/>',
    "switch": '<rect x="2.5" y="5.5" width="15" height="9" rx="4.5"/><circle cx="13" cy="10" r="2.2"/>',
    "project": '<path d="M3 6V4.8c0-.7.6-1.3 1.3-1.3h3.4l2 2.2h6c.7 0 1.3.6 1.3 1.3v8.2c0 .7-.6 1.3-1.3 1.3H4.3A1.3 1.3 0 0 1 3 15.2V6Z"/>',
    "key": '<circle cx="6.8" cy="13.2" r="3.6"/><path d="m9.4 10.6 7-7M13.2 6.8l2.6 2.6"/>',
    "member": '<circle cx="7.4" cy="6.8" r="2.9"/><path d="M2.4 16.6c0-2.9 2.1-4.9 5-4.9s5 2 5 4.9M12.6 4.2a2.9 2.9 0 0 1 0 5.2M14.4 12.2c2 .6 3.2 2.3 3.2 4.4"/>',
    "user": '<circle cx="10" cy="6.6" r="3.2"/><path d="M3.8 17c0-3.4 2.6-5.6 6.2-5.6s6.2 2.2 6.2 5.6"/>',
    "approval": '<path d="M3.5 10.5v-6h13v6M3.5 10.5h4l1 2h3l1-2h4v5h-13Z"/><path d="m7.5 6.5 2 2 3.5-3.5"/>',
    "tool": '<path d="M12.4 3.4a4.2 4.2 0 0 0-4.6 5.9l-4.5 4.5a1.6 1.6 0 0 0 0 2.2l.7.7a1.6 1.6 0 0 0 2.2 0l4.5-4.5a4.2 4.2 0 0 0 5.9-4.6l-2.5 2.5-2.4-.5-.5-2.4 1.2-3.8Z"/>',
    "inbox": '<path d="M3 11.5 5 4h10l2 7.5v4.7H3v-4.7Zm0 0h4l1 2h4l1-2h4"/>',
    "action": '<path d="M11 2.8 4.2 11.2h5l-.4 6 7-8.6h-5l.2-5.8Z"/>',
    "budget": '<path d="M3.2 14.2a7 7 0 1 1 13.6 0M10 12.6l3-4.2"/><path d="M8.7 13.4a1.5 1.5 0 1 0 2.6 0 1.5 1.5 0 0 0-2.6 0Z"/>',
    "audit": '<path d="m10 2.8 6 2.2v4.6c0 3.6-2.4 6.2-6 7.6-3.6-1.4-6-4-6-7.6V5l6-2.2Z"/><path d="m7.4 9.8 1.9 1.9 3.4-3.6"/>',
    "menu": '<path d="M3.5 5.5h13M3.5 10h13M3.5 14.5h13"/>',
    "flask": '<path d="M7.5 3h5M8.4 3v4.6L3.9 15a1.3 1.3 0 0 0 1.1 2h10a1.3 1.3 0 0 0 1.1-2l-4.5-7.4V3M6 12.4h8"/>',
}


@register.simple_tag
@cache
def icon(name: str) -> SafeString:
    """A decorative drawing; the text beside it carries the meaning."""
    return format_html(
        '<svg viewBox="0 0 20 20" fill="none" stroke="currentColor" stroke-width="1.6" stroke-linecap="round" '
        'stroke-linejoin="round" aria-hidden="true" focusable="false">{}</svg>',
        mark_safe(ICONS[name]),  # noqa: S308 - constants of this file
    )


@register.simple_tag(takes_context=True)
def navigation_sections(context: dict[str, Any]) -> SafeString:
    request = context.get("request")
    if request is None or not getattr(request, "user", None) or not request.user.is_authenticated:
        return _drawn(())
    return _drawn(tuple(navigation.sections(request)))


@lru_cache(maxsize=500)
def _drawn(sections: tuple[navigation.Section, ...]) -> SafeString:
    """Once for all who are offered the same on the same page: drawn anew it would be a third of a small page."""
    return render_to_string("console/nav_sections.html", {"sections": sections})


@register.inclusion_tag("console/trail.html", takes_context=True)
def trail(context: dict[str, Any]) -> dict[str, Any]:
    """Where in the admin this is: the list, and the object in it, without the room it belongs to."""
    opts, original = context.get("opts"), context.get("original") or context.get("object")
    steps: list[tuple[str, str]] = []
    if opts is not None:
        steps.append(
            (
                capfirst(opts.verbose_name_plural),
                reverse(f"admin:{opts.app_label}_{opts.model_name}_changelist"),
            )
        )
        if original is not None and not isinstance(original, str):
            steps.append(
                (
                    str(original),
                    reverse(f"admin:{opts.app_label}_{opts.model_name}_change", args=[original.pk]),
                )
            )
        elif context.get("add"):
            steps.append((f"New {opts.verbose_name}", ""))
    elif title := context.get("content_title") or context.get("title"):
        steps.append((str(title), ""))
    return {"steps": steps[:-1], "last": steps[-1] if steps else ("", "")}


@register.simple_tag
def environment_label() -> str:
    return settings.ENVIRONMENT_LABEL


@register.filter
def initials(user: Any) -> str:
    """One or two letters for a person without a picture."""
    words = (user.get_full_name() or user.get_username()).replace(".", " ").replace("_", " ").split()
    return "".join(word[0] for word in words[:2]) or "?"
