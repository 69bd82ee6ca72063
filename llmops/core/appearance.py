"""Text for somebody who decides by it: what cannot be seen, or looks like something else, is written out.

After Unicode's own account of what can be confused (UTS 39, https://www.unicode.org/reports/tr39/): words that mix alphabets, words of
nothing but letters that have a twin in Latin, and Latin in other clothes. Other alphabets by themselves stay as they are.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

#: Cannot be seen, or change how what stands beside them is seen (format characters, fillers, odd spaces, separators).
_UNSEEN = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))
_FILLERS = frozenset("\u115f\u1160\u3164\uffa0\u2800\U0001d159")
#: Marks that show nothing by themselves: joiners, inherent vowels, selectors of variants.
_UNSEEN_MARKS = frozenset("\u034f\u17b4\u17b5\u180b\u180c\u180d\u180f") | frozenset(
    map(chr, (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)))
)
#: The last of them asks for a picture, and follows one.
_AS_PICTURE = "\ufe0f"
#: A letter takes so many marks above and below before they reach into other lines.
_MOST_MARKS = 2
_PILED = ((0x0300, 0x036F), (0x1AB0, 0x1AFF), (0x1DC0, 0x1DFF), (0x20D0, 0x20FF), (0xFE20, 0xFE2F))
#: Letters with a twin in Latin, by alphabet.
_TWINS = {
    "CYRILLIC": frozenset("\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0458\u0455\u04bb\u0501\u051b\u051d\u04cf"
                          "\u0410\u0412\u0415\u041a\u041c\u041d\u041e\u0420\u0421\u0422\u0423\u0425\u0406\u0408\u0405\u050c\u051a\u051c\u04c0"),
    "GREEK": frozenset("\u03bf\u03bd\u03c1\u03c5\u03b9\u03ba\u03b1\u03c7\u03b3"
                       "\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a5\u03a7"),
    "ARMENIAN": frozenset("\u0561\u0570\u0578\u057d\u0581\u0584\u0585\u0555\u054d\u053c"),
}  # fmt: skip
#: Alphabets of which some letter looks like one of Latin: in one word with it, theirs are written out.
_ALPHABETS = ("CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE", "COPTIC", "LISU", "DESERET", "GEORGIAN")
_WORD = re.compile(r"\w+")


def written_out(text: str) -> str:
    """``text`` with every character that cannot be seen, turns others around, or looks like another one, as ``\\u202e``. Line breaks
    and tabs stay."""
    if text.isascii() and text.isprintable():
        return text
    alike = _alike(text)
    return "".join(
        _escape(one) if at in alike or _unseen(text, at, one) else one for at, one in enumerate(text)
    )


def _escape(character: str) -> str:
    number = ord(character)
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def _unseen(text: str, at: int, character: str) -> bool:
    if character.isascii():
        return character not in "\n\t" and not character.isprintable()
    category = unicodedata.category(character)
    if category in _UNSEEN or character in _FILLERS:
        return True
    if category == "Zs":
        # The wide one is the space of Chinese and Japanese.
        return character != "\u3000"
    if character in _UNSEEN_MARKS:
        picture = character == _AS_PICTURE and at > 0 and unicodedata.category(text[at - 1]) == "So"
        return not picture
    return at >= _MOST_MARKS and all(map(_piles, text[at - _MOST_MARKS : at + 1]))


def _piles(character: str) -> bool:
    return any(first <= ord(character) <= last for first, last in _PILED)


def _alike(text: str) -> set[int]:
    """Places of what looks like a letter or a figure that it is not."""
    found: set[int] = set()
    if text.isascii():
        return found
    # Of which alphabets there is a letter that is nobody's twin: then the others are at home here.
    native = {
        _alphabet(one) for one in set(text) if one.isalpha() and one not in _TWINS.get(_alphabet(one), ())
    }
    for match in _WORD.finditer(text):
        word = match[0]
        if word.isascii():
            continue
        letters = {_alphabet(one) for one in word if one.isalpha()}
        for at, one in enumerate(word, match.start()):
            if one.isascii():
                continue
            alphabet = _alphabet(one)
            strange = alphabet in _ALPHABETS and (
                "LATIN" in letters or (one in _TWINS.get(alphabet, ()) and alphabet not in native)
            )
            figure = unicodedata.category(one) == "Nd" and (
                alphabet not in native or "LATIN" in letters or any(other in "0123456789" for other in word)
            )
            if strange or figure or _in_other_clothes(one):
                found.add(at)
    return found


@lru_cache(maxsize=4096)
def _alphabet(character: str) -> str:
    """The first word of its name, which is that of its alphabet."""
    name = unicodedata.name(character, "").removeprefix("EXTENDED ")
    return name.partition(" ")[0].partition("-")[0]


@lru_cache(maxsize=4096)
def _in_other_clothes(character: str) -> bool:
    """Whether it is an ASCII letter or figure as a wide, mathematical or otherwise dressed one."""
    return (
        unicodedata.decomposition(character).startswith(("<wide>", "<font>"))
        and unicodedata.normalize("NFKC", character).isascii()
    )
