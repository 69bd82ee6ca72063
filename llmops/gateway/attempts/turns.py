"""Where a conversation may be cut: its oldest turns can be left out, with tool calls and their results together. Pure.

Knows the messages of chat and the input items of responses. A cut never parts a call from its result or a thought from what
it leads to; instructions (``system``, ``developer``) and the last turn of the user always stay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Item = Mapping[str, Any]

_INSTRUCTIONS = ("system", "developer")


@dataclass(frozen=True, slots=True)
class Cut:
    """Indexes of the items to leave out, ascending, and how many tokens go with them."""

    dropped: tuple[int, ...]
    tokens: int


def drop_oldest(items: Sequence[Item], sizes: Sequence[int], excess: int) -> Cut | None:
    """The oldest turns that together hold at least ``excess`` tokens; None when all that may go holds fewer.

    ``sizes`` are the tokens of each item. Whole turns of the user and what answered them go first; when only the last one is
    left, the oldest steps within it (calls and their results), but never its last.
    """
    segments = _segments(items)
    if not segments:
        return None
    users = [index for index, segment in enumerate(segments) if any(_is_user(items[one]) for one in segment)]
    last_user = users[-1] if users else -1
    droppable: list[list[int]] = []
    for index, segment in enumerate(segments[: max(last_user, 0)]):
        # Between two messages of the user lies one turn.
        if droppable and index not in users:
            droppable[-1] += segment
        else:
            droppable.append(list(segment))
    droppable += segments[last_user + 1 : -1]
    dropped: list[int] = []
    tokens = 0
    for turn in droppable:
        if tokens >= excess:
            break
        dropped += turn
        tokens += sum(sizes[one] for one in turn)
    if not dropped or tokens < excess:
        return None
    return Cut(tuple(sorted(dropped)), tokens)


def _segments(items: Sequence[Item]) -> list[list[int]]:
    """The items that are not instructions, in the smallest groups that stay together."""
    segments: list[list[int]] = []
    waiting: set[str] = set()
    glued = False
    for index, item in enumerate(items):
        if _role(item) in _INSTRUCTIONS:
            continue
        closes = _closes(item)
        # A result belongs to what came before it, even where its call is not in sight.
        if segments and (waiting or glued or closes):
            segments[-1].append(index)
        else:
            segments.append([index])
        waiting -= closes
        waiting |= _opens(item)
        glued = item.get("type") == "reasoning"
    return segments


def _role(item: Item) -> str:
    role = item.get("role")
    return role if isinstance(role, str) else ""


def _is_user(item: Item) -> bool:
    return _role(item) == "user"


def _opens(item: Item) -> set[str]:
    """Ids of the calls that wait for a result after this item."""
    found: set[str] = set()
    calls = item.get("tool_calls")
    if isinstance(calls, list):
        found |= {str(call["id"]) for call in calls if isinstance(call, Mapping) and call.get("id")}
    if _role(item) == "assistant" and isinstance(item.get("function_call"), Mapping):
        found.add("function")
    kind = item.get("type")
    if isinstance(kind, str):
        if kind.endswith("_call") and item.get("call_id"):
            found.add(str(item["call_id"]))
        elif kind == "mcp_approval_request" and item.get("id"):
            found.add(str(item["id"]))
    return found


def _closes(item: Item) -> set[str]:
    """Ids of the calls whose result this item is."""
    if _role(item) == "tool":
        return {str(item.get("tool_call_id"))}
    if _role(item) == "function":
        return {"function"}
    kind = item.get("type")
    if isinstance(kind, str):
        if kind.endswith("_call_output"):
            return {str(item.get("call_id"))}
        if kind == "mcp_approval_response":
            return {str(item.get("approval_request_id"))}
    return set()


def transcript(items: Sequence[Item]) -> str:
    """What was said, for a reader: one paragraph an item."""
    return "\n\n".join(told for item in items if (told := _told(item)))


def _told(item: Item) -> str:
    parts = [_text(item.get("content"))]
    calls = item.get("tool_calls")
    for call in calls if isinstance(calls, list) else ():
        function = call.get("function") if isinstance(call, Mapping) else None
        if isinstance(function, Mapping):
            parts.append(f"[calls {function.get('name')}({function.get('arguments')})]")
    kind = item.get("type")
    if isinstance(kind, str) and kind.endswith("_call"):
        parts.append(
            f"[calls {item.get('name') or kind}({item.get('arguments') or item.get('input') or ''})]"
        )
    elif isinstance(kind, str) and kind.endswith("_call_output"):
        parts.append(_text(item.get("output")))
    said = " ".join(part for part in parts if part)
    if not said:
        return ""
    who = _role(item) or ("tool" if isinstance(kind, str) and kind.endswith("_output") else "assistant")
    return f"{who}: {said}"


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    return " ".join(
        part["text"] if isinstance(part.get("text"), str) else f"[{part.get('type', 'something')}]"
        for part in content
        if isinstance(part, Mapping)
    )
