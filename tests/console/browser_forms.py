"""What a browser would send: the fields of a page's own form as the page shows them."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any


class _Forms(HTMLParser):
    """Successful controls (HTML, section 4.10.22.4) of every POST form, by form."""

    def __init__(self) -> None:
        super().__init__()
        self.forms: list[dict[str, Any]] = []
        self._form: dict[str, list[str]] | None = None
        self._select: tuple[str, bool, list[tuple[str, bool]]] | None = None
        self._text: tuple[str, list[str]] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        name = found.get("name", "")
        if tag == "form":
            self._form = {}
            if found.get("method", "").lower() == "post":
                self.forms.append(
                    {"action": found.get("action", ""), "id": found.get("id", ""), "fields": self._form}
                )
        elif self._form is None or "disabled" in found:
            return
        elif tag == "input" and name:
            kind = found.get("type", "text").lower()
            if kind in ("submit", "button", "image", "reset", "file"):
                return
            if kind in ("checkbox", "radio") and "checked" not in found:
                return
            self._form.setdefault(name, []).append(found.get("value", "on" if kind == "checkbox" else ""))
        elif tag == "select" and name:
            self._select = (name, "multiple" in found, [])
        elif tag == "option" and self._select:
            self._select[2].append((found.get("value", ""), "selected" in found))
        elif tag == "textarea" and name:
            self._text = (name, [])

    def handle_data(self, data: str) -> None:
        if self._text:
            self._text[1].append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._form = None
        elif self._form is None:
            return
        elif tag == "select" and self._select:
            name, multiple, options = self._select
            chosen = [value for value, selected in options if selected]
            if not chosen and not multiple and options:
                chosen = [options[0][0]]
            self._form.setdefault(name, []).extend(chosen)
            self._select = None
        elif tag == "textarea" and self._text:
            name, parts = self._text
            self._form.setdefault(name, []).append("".join(parts).removeprefix("\n"))
            self._text = None


def form_of(page: str) -> dict[str, list[str]]:
    """Fields of the page's main form: the POST form that is neither signing out nor a list's bulk actions."""
    parser = _Forms()
    parser.feed(page)
    forms = [
        form for form in parser.forms if "logout" not in form["action"] and form["id"] != "changelist-form"
    ]
    assert forms, "the page has no form"
    return max(forms, key=lambda form: len(form["fields"]))["fields"]
