"""Runbooks as the console shows them: Markdown files, of which only what they need is understood, and nothing is passed through."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

from django.conf import settings
from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_BOLD = re.compile(r"\*\*(.+?)\*\*")
_CODE = re.compile(r"`([^`]+)`")
#: To another runbook; an address elsewhere is shown as text.
_LINK = re.compile(r"\[([^\]]+)\]\(([a-z0-9-]+)\.md\)")


def _path(name: str) -> Path | None:
    if not _NAME.fullmatch(name):
        return None
    path = Path(settings.RUNBOOK_DIR) / f"{name}.md"
    return path if path.is_file() else None


def exists(name: str) -> bool:
    return _path(name) is not None


def names() -> list[str]:
    return sorted(path.stem for path in Path(settings.RUNBOOK_DIR).glob("*.md") if path.stem != "README")


def text_of(name: str) -> str | None:
    """The file as it is, or None."""
    path = _path(name)
    return None if path is None else path.read_text(encoding="utf-8")


def title_of(name: str) -> str:
    first = (text_of(name) or "").partition("\n")[0]
    return first.removeprefix("#").strip() or name.replace("-", " ").capitalize()


def rendered(name: str) -> SafeString | None:
    """HTML of everything below the title, or None where there is no such runbook."""
    text = text_of(name)
    return None if text is None else _html(text)


@lru_cache(maxsize=64)
def _html(text: str) -> SafeString:
    blocks = re.split(r"\n\s*\n", text.strip())
    return mark_safe("\n".join(_block(block) for block in blocks if not block.startswith("# ")))  # noqa: S308 - escaped below


def _block(block: str) -> str:
    lines = block.splitlines()
    if block.startswith("## "):
        return f"<h3>{inline(lines[0][3:])}</h3>"
    if lines[0].startswith("    ") or lines[0].startswith("```"):
        code = "\n".join(line.removeprefix("    ") for line in lines if not line.startswith("```"))
        return f"<pre><code>{escape(code)}</code></pre>"
    for mark, tag in ((r"[-*] ", "ul"), (r"\d+\. ", "ol")):
        if re.match(mark, lines[0]):
            items = re.split(rf"^{mark}", block, flags=re.MULTILINE)[1:]
            return (
                f"<{tag}>"
                + "".join(f"<li>{inline(' '.join(item.split()))}</li>" for item in items)
                + f"</{tag}>"
            )
    return f"<p>{inline(' '.join(line.strip() for line in lines))}</p>"


def inline(text: str) -> SafeString:
    """HTML of one line."""
    found: str = escape(text)
    found = _CODE.sub(r"<code>\1</code>", found)
    found = _BOLD.sub(r"<b>\1</b>", found)
    found = _LINK.sub(r'<a href="/alerts/runbooks/\2/">\1</a>', found)
    return mark_safe(found)  # noqa: S308 - escaped above
