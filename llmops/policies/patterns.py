"""Regular expressions that take time linear in the text, and know which end of a text may be the beginning of a match.

They run on RE2 (Cox 2007, "Regular Expression Matching Can Be Simple And Fast"): automata, no backtracking, and the
interpreter's lock is free meanwhile. Every expression must be bounded: ``{0,50}`` in place of ``*``. So a match has a
longest length (``reach``), and a stream need not be held back for longer than that. The expression that recognises the
beginnings of a match (its prefix closure, at the end of the text) is derived from the expression itself.

Positions are byte offsets in UTF-8 text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import re2

#: The longest match that any expression may have, in characters.
MAX_REACH = 2_000
MAX_EXPRESSION = 1_000
_MEMORY = 64 * 1024 * 1024
_ANYWHERE, _HERE = re2._Anchor.UNANCHORED, re2._Anchor.ANCHOR_START
_COUNT = re.compile(r"\{(\d{1,4})(,(\d{0,4}))?\}")
_GROUP = re.compile(r"\(\?(?:P?<\w+>|[imsU]*(?:-[imsU]+)?:)|\((?!\?)")
_WORDLY = re.compile("[A-Za-z0-9_]")
_LEADING_FLAGS = re.compile(r"\(\?[ims]+\)")
_ZERO_WIDTH = frozenset("bBAz")
#: A wider expression may be searched for in many texts, a line break between them: each end of a text is that of a line.
_AT_LINES = {"^": "(?m:^)", "$": "(?m:$)", r"\A": "(?m:^)", r"\z": "(?m:$)"}
_ESCAPE = re.compile(
    r"\\(?:[pP](?:\{\^?\w+\}|\w)|x(?:\{[0-9A-Fa-f]+\}|[0-9A-Fa-f]{2})|[0-7]{1,3}|.)", re.DOTALL
)


class ExpressionRefused(ValueError):
    """An expression is not one, or not bounded; the message says what to write instead."""


#: Up to so many repetitions are counted by a wider expression too.
_COUNTED = 2
#: How a piece stands in a sequence: of no width, one character, repeated from nothing on, anything else.
_ZERO, _CHARACTER, _OPTIONAL, _GROUPED = range(4)


class Node:
    """A piece of an expression: its source, how long a match of it can be, the source of its beginnings, and a wider
    expression that matches all that it matches, in texts joined by line breaks too, and does not count repetitions up to an
    upper bound. ``wide_opening`` is to ``opening`` what ``wide`` is to ``source``."""

    __slots__ = ("kind", "opening", "reach", "source", "wide", "wide_opening")

    def __init__(
        self,
        source: str,
        reach: int,
        opening: str,
        kind: int = _GROUPED,
        wide: str | None = None,
        wide_opening: str | None = None,
    ) -> None:
        self.source = source
        self.reach = reach
        self.opening = opening
        self.kind = kind
        self.wide = source if wide is None else wide
        self.wide_opening = opening if wide_opening is None else wide_opening


class _Parser:
    """RE2's syntax, as far as it is needed to bound it. What RE2 itself refuses was refused before."""

    def __init__(self, expression: str) -> None:
        self.text = expression
        self.at = 0
        self.depth = 0

    def whole(self) -> Node:
        flags = ""
        if found := _LEADING_FLAGS.match(self.text):
            flags, self.at = found[0], found.end()
        node = self._alternatives()
        if self.at < len(self.text):
            raise ExpressionRefused("it has a closing parenthesis without an opening one")
        return Node(
            flags + node.source,
            node.reach,
            flags + node.opening,
            wide=flags + node.wide,
            wide_opening=flags + node.wide_opening,
        )

    def _alternatives(self) -> Node:
        self.depth += 1
        if self.depth > 50:
            raise ExpressionRefused("it is nested too deeply")
        found = [self._sequence()]
        while self._peek() == "|":
            self.at += 1
            found.append(self._sequence())
        self.depth -= 1
        if len(found) == 1:
            return found[0]
        return either(found)

    def _sequence(self) -> Node:
        found: list[Node] = []
        while (char := self._peek()) and char not in "|)":
            found.append(self._counted(self._piece()))
        return sequence(found)

    def _peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def _piece(self) -> Node:
        text, at = self.text, self.at
        char = text[at]
        if char == "(":
            opened = _GROUP.match(text, at)
            if opened is None:
                raise ExpressionRefused(
                    "of groups that begin with (? only (?:...), (?P<name>...) and (?i:...) may stand inside it"
                )
            self.at = opened.end()
            inner = self._alternatives()
            if self._peek() != ")":
                raise ExpressionRefused("a parenthesis is not closed")
            self.at += 1
            prefix = opened[0] if opened[0].endswith(":") else "(?:"
            return Node(
                f"{prefix}{inner.source})",
                inner.reach,
                f"{prefix}{inner.opening})",
                _ZERO if inner.kind == _ZERO else _GROUPED,
                f"{prefix}{inner.wide})",
                f"{prefix}{inner.wide_opening})",
            )
        if char == "[":
            return self._class()
        if char == "\\":
            escaped = _ESCAPE.match(text, at)
            if escaped is None or escaped[0][1] in "QEC":
                raise ExpressionRefused("it may not use \\Q, \\E or \\C")
            self.at = escaped.end()
            if escaped[0][1] in _ZERO_WIDTH:
                return Node(escaped[0], 0, "", _ZERO, _AT_LINES.get(escaped[0]))
            return _single(escaped[0])
        self.at += 1
        if char in "^$":
            return Node(char, 0, "", _ZERO, _AT_LINES[char])
        return _single(char)

    def _class(self) -> Node:
        text, start = self.text, self.at
        at = start + 1
        if text[at : at + 1] == "^":
            at += 1
        if text[at : at + 1] == "]":
            at += 1
        while at < len(text) and text[at] != "]":
            if text[at] == "\\":
                at += 2
            elif text.startswith("[:", at):
                at = text.find(":]", at) + 2
            else:
                at += 1
        self.at = at + 1
        return _single(text[start : self.at])

    def _counted(self, node: Node) -> Node:
        char = self._peek()
        if char in ("*", "+"):
            raise ExpressionRefused(
                f"{char} has no upper bound; write {{0,50}} in place of * and {{1,50}} in place of +"
            )
        if char == "?":
            least, most, length = 0, 1, 1
        elif (found := _COUNT.match(self.text, self.at)) is not None:
            least = int(found[1])
            if found[2] and not found[3]:
                raise ExpressionRefused(f"{found[0]} has no upper bound; write {{{least},50}}")
            most = int(found[3]) if found[2] else least
            length = len(found[0])
        else:
            return node
        self.at += length
        lazy = ""
        if self._peek() == "?":
            self.at += 1
            lazy = "?"
        return repeated(node, least, most, lazy)


def _single(source: str) -> Node:
    return Node(source, 1, f"(?:{source})?", _CHARACTER)


def either(nodes: Sequence[Node]) -> Node:
    return Node(
        "|".join(one.source for one in nodes),
        max(one.reach for one in nodes),
        "|".join(one.opening for one in nodes),
        wide="|".join(one.wide for one in nodes),
        wide_opening="|".join(one.wide_opening for one in nodes),
    )


def sequence(nodes: Sequence[Node]) -> Node:
    source = "".join(one.source for one in nodes)
    kind = _ZERO if all(one.kind == _ZERO for one in nodes) else _GROUPED
    return Node(
        source,
        sum(one.reach for one in nodes),
        _opening([(one.kind, one.source, one.opening) for one in nodes]),
        kind,
        "".join(one.wide for one in nodes),
        # What is of no width stands at the end of one text.
        _opening(
            [(one.kind, one.source if one.kind == _ZERO else one.wide, one.wide_opening) for one in nodes]
        ),
    )


def _opening(pieces: Sequence[tuple[int, str, str]]) -> str:
    """The beginnings of a sequence of pieces, each given by its kind, its source and its own beginnings."""
    opening, strict = "", False
    for kind, source, begun in reversed(pieces):
        if kind == _ZERO:
            if opening:
                opening, strict = source + opening, True
            continue
        if strict:
            # What came so far may end here, and what it will border on is not known yet.
            opening = f"(?:{opening})?"
        strict = kind == _GROUPED
        if kind == _CHARACTER:
            opening = f"(?:{source}{opening})?"
        elif kind == _OPTIONAL:
            opening = begun + opening
        elif opening:
            opening = f"(?:{begun}|{source}{opening})"
        else:
            opening = f"(?:{begun})"
    return opening


def repeated(node: Node, least: int, most: int, lazy: str = "") -> Node:
    if node.kind == _ZERO or not most:
        return Node("", 0, "", _ZERO)
    if node.kind == _CHARACTER:
        source, opening = node.source, f"{node.source}{_up_to(most)}"
        wide_opening = f"{node.wide}{_up_to(most, _COUNTED)}"
    else:
        source = node.source
        opening = f"{source}{_up_to(most - 1)}(?:{node.opening})?"
        wide_opening = f"{node.wide}{_up_to(most - 1, _COUNTED)}(?:{node.wide_opening})?"
    kind = _GROUPED if least else _OPTIONAL
    if least == most:
        wide = f"{node.wide}{{{least}}}"
    else:
        wide = f"{node.wide}{{{least},{most if most <= _COUNTED else ''}}}"
    return Node(f"{source}{{{least},{most}}}{lazy}", node.reach * most, opening, kind, wide, wide_opening)


def _up_to(most: int, counted: int = MAX_REACH) -> str:
    return f"{{0,{most}}}" if most <= counted else "*"


class Pattern:
    """A compiled, bounded expression. Raises ``ExpressionRefused``."""

    __slots__ = ("_find", "_opening", "_search", "reach", "wide", "wide_opening")

    def __init__(self, expression: str, *, longest: int = MAX_REACH, ignore_case: bool = False) -> None:
        options = re2.Options()
        options.max_mem = _MEMORY
        options.log_errors = False
        # Groups only group: telling what stands in them would cost the automaton its speed.
        options.never_capture = True
        options.case_sensitive = not ignore_case
        try:
            # A pattern of bytes with RE2's default encoding reads UTF-8 and answers in bytes.
            self._search = re2.compile(expression.encode(), options)
        except (re2.error, UnicodeEncodeError) as error:
            said = error.args[0] if error.args else ""
            raise ExpressionRefused(said.decode() if isinstance(said, bytes) else str(said)) from None
        node = _Parser(expression).whole()
        if node.reach > longest:
            raise ExpressionRefused(f"it can match {node.reach} characters, more than {longest}")
        if self._search.match(b"") is not None:
            raise ExpressionRefused("it matches the empty text, and so everywhere")
        # Without the wrapper, which makes an object of every match.
        self._find = self._search._regexp.Match
        self.reach = node.reach
        #: the source of an expression that takes a small automaton, and that matches at least where this one does, also when
        #: the text stands among others with a line break before and after it
        self.wide = f"(?i:{node.wide})" if ignore_case else f"(?:{node.wide})"
        #: the same of the expression of its beginnings
        self.wide_opening = f"(?i:{node.wide_opening})" if ignore_case else f"(?:{node.wide_opening})"
        try:
            self._opening = re2.compile(f"(?:{node.opening})\\z".encode(), options)
        except re2.error:
            raise ExpressionRefused("it is too large; split it") from None

    def search(self, data: bytes, start: int = 0, end: int | None = None) -> re2._Match | None:
        return self._search.search(data, start, end)

    def find(self, data: bytes, start: int = 0, end: int | None = None) -> tuple[int, int]:
        """Where the leftmost match begins and ends, as fast as can be; (-1, -1) when there is none."""
        found: tuple[int, int] = self._find(_ANYWHERE, data, start, len(data) if end is None else end)[0]
        return found

    def end_of(self, data: bytes, start: int) -> int:
        """Where the match ends that begins at ``start``; -1 when none does."""
        end: int = self._find(_HERE, data, start, len(data))[0][1]
        return end

    def match(self, data: bytes, start: int = 0) -> re2._Match | None:
        """A match that begins at ``start``."""
        return self._search.match(data, start)

    def matches(self, data: bytes, start: int = 0) -> Iterator[re2._Match]:
        return self._search.finditer(data, start)

    def open_at(self, data: bytes, start: int = 0) -> int:
        """Where the earliest beginning of a match stands that more text could complete; ``len(data)`` when none does."""
        # A character has at most four bytes.
        start = max(start, len(data) - 4 * self.reach)
        start = min(start, len(data))
        found: int = self._opening._regexp.Match(_ANYWHERE, data, start, len(data))[0][0]
        return len(data) if found < 0 else found


def literal(text: str) -> str:
    """The expression that matches ``text`` itself, any white space where it has one space."""
    return r"\s{1,3}".join(re2.escape(word) for word in text.split())


def whole(text: str) -> str:
    """``literal``, where no letter or digit of ASCII touches it; ``whole_word`` knows those of other alphabets."""
    before, after = (r"\b" if _WORDLY.match(char) else "" for char in (text.strip()[0], text.strip()[-1]))
    return f"{before}{literal(text)}{after}"


def char_before(data: bytes, at: int) -> str:
    """The character that ends at ``at``; empty at the beginning."""
    start = at - 1
    while start >= 0 and at - start < 4 and data[start] & 0xC0 == 0x80:
        start -= 1
    return data[max(0, start) : at].decode("utf-8", "replace") if at else ""


def char_after(data: bytes, at: int) -> str:
    """The character that begins at ``at``; empty at the end."""
    return data[at : at + 4].decode("utf-8", "ignore")[:1]


def is_word(char: str) -> bool:
    return char.isalnum() or char == "_"


def whole_word(data: bytes, start: int, end: int) -> bool:
    """Whether no letter or digit touches what stands there."""
    return not (
        (is_word(char_before(data, start)) and is_word(char_after(data, start)))
        or (is_word(char_before(data, end)) and is_word(char_after(data, end)))
    )
