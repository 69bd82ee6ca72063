"""Settings of a check as a person writes them: YAML, of which JSON is a part. Pure."""

from __future__ import annotations

from typing import Any

import yaml

MOST_CHARS = 500_000


class _Loader(yaml.SafeLoader):
    """Without aliases, which can make a small text expand without bound, and without a member named twice."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.composer.ComposerError(None, None, "aliases are not supported", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        found = super().construct_mapping(node, deep=deep)
        if len(found) != len(node.value):
            raise yaml.constructor.ConstructorError(None, None, "a member is named twice", node.start_mark)
        return found


def read_settings(text: str) -> dict[str, Any]:
    """The settings that ``text`` says, empty for nothing. Raises ``ValueError`` with a sentence and the line."""
    if len(text) > MOST_CHARS:
        raise ValueError(f"at most {MOST_CHARS} characters are read")
    try:
        found = yaml.load(text, _Loader)  # noqa: S506 - a safe loader with less
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}" if mark else ""
        raise ValueError(f"this is not YAML{where}: {error.problem or 'it cannot be read'}") from None
    except yaml.YAMLError:
        raise ValueError("this is not YAML: it holds a character that YAML does not allow") from None
    except (RecursionError, OverflowError, ValueError):
        raise ValueError("this is not YAML that can be kept") from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ValueError('write names and values, such as "threshold: 60"')
    return found


def write_settings(settings: dict[str, Any]) -> str:
    """YAML that ``read_settings`` reads as the same; empty for no settings."""
    if not settings:
        return ""
    return yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=100).strip("\n")
