"""Personal data by shape and checksum: what can be recognised without guessing at names."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from ipaddress import ip_address
from typing import Annotated, Any, Literal, get_args

from msgspec import Meta

from llmops.core.stopping import go_on
from llmops.core.verdicts import AFTER, REDACT
from llmops.policies.checks.base import FINDS_PLACES, SettingRefused, Span, TextCheck, TextSettings
from llmops.policies.patterns import Pattern, char_after, char_before, is_word

Kind = Literal["email", "phone", "iban", "card", "ip", "ssn", "birth_date"]
KINDS: tuple[str, ...] = get_args(Kind)
#: A date is personal only beside a word that makes it one; whoever wants that says so.
USUAL = tuple(kind for kind in KINDS if kind != "birth_date")

_MONTH = r"(?i:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]{0,6}"
_DATE = (
    r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}|[0-9]{1,2}[./-][0-9]{1,2}[./-](?:[0-9]{4}|[0-9]{2})"
    rf"|[0-9]{{1,2}}(?:st|nd|rd|th)?\.? {_MONTH},? [0-9]{{4}}|{_MONTH} [0-9]{{1,2}}(?:st|nd|rd|th)?,? [0-9]{{4}}"
)
#: IBAN registry (SWIFT, release 99): length of an IBAN by country.
_LENGTHS = (
    "AD:24 AE:23 AL:28 AT:20 AZ:28 BA:20 BE:16 BG:22 BH:22 BI:27 BR:29 BY:28 CH:21 CR:22 CY:28 CZ:24 DE:22 DJ:27 DK:18 DO:28 "
    "EE:20 EG:29 ES:24 FI:18 FK:18 FO:18 FR:27 GB:22 GE:22 GI:23 GL:18 GR:27 GT:28 HN:28 HR:21 HU:28 IE:22 IL:23 IQ:23 IS:26 "
    "IT:27 JO:30 KW:30 KZ:20 LB:28 LC:32 LI:21 LT:20 LU:20 LV:21 LY:25 MC:27 MD:24 ME:22 MK:19 MN:20 MR:27 MT:31 MU:30 NI:28 "
    "NL:18 NO:15 OM:23 PK:24 PL:28 PS:29 PT:25 QA:29 RO:24 RS:22 RU:33 SA:24 SC:31 SD:18 SE:24 SI:19 SK:24 SM:27 SO:23 ST:25 "
    "SV:28 TL:23 TN:24 TR:26 UA:29 VA:22 VG:24 XK:20 YE:30"
)
_IBAN = {part[:2]: int(part[3:]) for part in _LENGTHS.split()}
_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_HEX = r"[0-9A-Fa-f]{1,4}"
#: What need not be looked at twice is not matched at all: shapes say where a word must begin and end, as far as letters and
#: digits of ASCII go.
_DOMAIN = r"@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,62})\.){1,4}[A-Za-z]{2,24}"
_SHAPES = {
    "email": rf"[A-Za-z0-9][A-Za-z0-9._%+'-]{{0,63}}{_DOMAIN}",
    # Country code and number (ITU-T E.164: at most 15 digits), or a North American number with its area code.
    "phone": r"\+[1-9](?:[ .()/-]{0,2}[0-9]){7,14}\b|(?:\([2-9][0-9]{2}\) ?|\b[2-9][0-9]{2}[ .-])[2-9][0-9]{2}[ .-][0-9]{4}\b",
    "iban": rf"\b(?:{'|'.join(sorted(_IBAN))})[0-9]{{2}}(?: ?[A-Z0-9]){{11,30}}",
    "card": r"\b(?:[2-6][0-9]{12,18}|[2-6][0-9]{3}(?:[ -][0-9]{4}){2}[ -][0-9]{1,7}|3[0-9]{3}[ -][0-9]{6}[ -][0-9]{4,5})\b",
    # RFC 4291, section 2.2. Fewer than three groups around two colons are names in code.
    "ip": (
        rf"\b(?:{_OCTET}\.){{3}}{_OCTET}\b|\b(?:{_HEX}:){{7}}{_HEX}\b|\b(?:{_HEX}:){{2,6}}(?::{_HEX}){{1,5}}\b"
        rf"|\b{_HEX}:(?::{_HEX}){{2,6}}\b|\b(?:{_HEX}:){{3,7}}:|:(?::{_HEX}){{3,7}}\b"
    ),
    "ssn": r"\b[0-9]{3}-[0-9]{2}-[0-9]{4}\b",
    "birth_date": rf"(?i:date of birth|birth ?date|birthday|born(?: on)?|dob|geboren am|geburtsdatum)[ :=-]{{1,4}}(?:is |on )?(?:{_DATE})",
}
#: Addresses are found from behind: an automaton that counts characters from every place on has endless states.
_END_OF_EMAIL = Pattern(r"[A-Za-z0-9._%+'-]" + _DOMAIN)
_LOCAL, _MARKS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._%+'-", b"._%+'-"
_MAX_LOCAL = 64
_NONE = (-1, -1)
_DATE_ALONE = Pattern(_DATE)


class PersonalDataSettings(TextSettings, frozen=True, kw_only=True):
    kinds: Annotated[
        tuple[Kind, ...],
        Meta(
            description="Which kinds are looked for; empty for all but dates of birth, which must be named."
        ),
    ] = ()
    reversible: Annotated[
        bool,
        Meta(
            description="Before, with the action redact: the model sees placeholders, the caller's answer gets the values back. "
            "They are kept in memory for the one call only."
        ),
    ] = False
    except_ending: Annotated[
        tuple[Annotated[str, Meta(min_length=3, max_length=200)], ...],
        Meta(
            max_length=100,
            description="Values that end like this may pass, such as @example.com or an office's number.",
        ),
    ] = ()


class PersonalData(TextCheck):
    kind = "personal_data"
    title = "Personal data"
    summary = (
        "Finds e-mail addresses, phone numbers, IBANs, credit cards, IP addresses, US social security numbers and, if named, "
        "dates of birth. Redacted, they become [EMAIL_1], [PHONE_1]: the same value gets the same placeholder."
    )
    actions = FINDS_PLACES
    settings_type = PersonalDataSettings
    numbered = True

    @classmethod
    def refuse(cls, settings: Any, stage: str, action: str) -> None:
        if settings.reversible and (stage == AFTER or action != REDACT):
            raise SettingRefused("reversible", "it goes with the action redact before the call only")

    def __init__(self, settings: Any, stage: str, action: str) -> None:
        super().__init__(settings, stage, action)
        self.reversible = settings.reversible
        kinds = settings.kinds or USUAL
        self._any = Pattern("|".join(shape for kind, shape in _SHAPES.items() if kind in kinds))
        self.hint, self.opening = self._any.wide, self._any.wide_opening
        self._emails = "email" in kinds
        self._shapes = _pattern(set(kinds) - {"email"})
        self._others = _pattern(set(kinds) - {"email", "ip"})
        self._birth = Pattern(_SHAPES["birth_date"]) if "birth_date" in kinds else None
        self._except = tuple(one.lower().encode() for one in settings.except_ending)

    def spans(self, data: bytes, start: int = 0) -> list[Span]:
        found: list[Span] = []
        no_address = 0
        email, other = self._email(data, start), self._find(data, start, no_address)
        while True:
            go_on()
            if 0 <= email[0] < start:
                email = self._email(data, start)
            if 0 <= other[0] < start:
                other = self._find(data, start, no_address)
            if email[0] >= 0 and not 0 <= other[0] < email[0]:
                first, end = email
                kind, since = "email", first
            elif other[0] >= 0:
                since, end = other
                kind = self._kind(data, since, end)
                place = _PLACES[kind](data, since, end)
                if place is None:
                    # Behind the letters and digits that it began with: nothing within them could be one, because it would
                    # not stand apart.
                    start = max(_end(_WORD, data, since), since + 1)
                    if kind == "ip":
                        no_address = _end(_ADDRESS, data, since)
                    continue
                first, end = place
            else:
                return found
            start = end
            if not (self._except and data[first:end].lower().endswith(self._except)):
                found.append(Span(first, end, kind, since))

    def _email(self, data: bytes, start: int) -> tuple[int, int]:
        """Where the next e-mail address begins and ends."""
        while self._emails:
            found, end = _END_OF_EMAIL.find(data, start)
            if found < 0:
                break
            at = found + 1
            local = data[max(start, at - _MAX_LOCAL) : at]
            local = local[len(local.rstrip(_LOCAL)) :].lstrip(_MARKS)
            if local:
                return at - len(local), end
            start = at
        return _NONE

    def _find(self, data: bytes, start: int, no_address: int) -> tuple[int, int]:
        """The next candidate of other kinds. Before ``no_address`` no address can stand apart, so none is looked for."""
        if start < no_address:
            if self._others is not None:
                found = self._others.find(data, start, min(len(data), no_address + 4 * self._others.reach))
                if 0 <= found[0] < no_address:
                    return found
            start = no_address
        return _NONE if self._shapes is None else self._shapes.find(data, start)

    def _kind(self, data: bytes, first: int, end: int) -> str:
        """Which of the shapes it is that matched there: they can be told apart by a few of their characters."""
        text = data[first:end]
        if self._birth is not None and self._birth.end_of(data, first) >= 0:
            return "birth_date"
        begins = text[0]
        if begins in b"+(":
            return "phone"
        if b":" in text or text.count(b".") == 3:
            return "ip"
        if begins > 57:
            return "iban"
        if text[3] in b" .-":
            return "phone" if len(text) == 12 else "ssn"
        return "card"

    def open_at(self, data: bytes, start: int = 0) -> int:
        return self._any.open_at(data, start)


Place = Callable[[bytes, int, int], "tuple[int, int] | None"]


def _pattern(kinds: Collection[str]) -> Pattern | None:
    shapes = [shape for kind, shape in _SHAPES.items() if kind in kinds]
    return Pattern("|".join(shapes)) if shapes else None


def _end(run: re.Pattern[bytes], data: bytes, first: int) -> int:
    """Where a run of characters, perhaps of none, ends that begins at ``first``."""
    found = run.match(data, first)
    return first if found is None else found.end()


_WORD = re.compile(rb"[A-Za-z0-9_]*")
_ADDRESS = re.compile(rb"[0-9A-Fa-f:.]*")


def _apart(data: bytes, first: int, end: int) -> bool:
    """Whether no letter or digit touches it; those of ASCII do not, because of its shape."""
    return not (
        (first and data[first - 1] >= 128 and is_word(char_before(data, first)))
        or (end < len(data) and data[end] >= 128 and is_word(char_after(data, end)))
    )


def _phone(data: bytes, first: int, end: int) -> tuple[int, int] | None:
    before = char_before(data, first)
    if is_word(before) or before in ("+", ".", "-") or not _apart(data, first, end):
        return None
    return first, end


def _card(data: bytes, first: int, end: int) -> tuple[int, int] | None:
    if is_card(data[first:end].translate(None, b" -")) and _apart(data, first, end):
        return first, end
    return None


def is_card(digits: bytes) -> bool:
    """A card number by its issuer's prefix and length (ISO/IEC 7812) and checksum (Luhn 1960)."""
    length = len(digits)
    two, four = int(digits[:2]), int(digits[:4])
    issued = (
        (digits[0] == 0x34 and length in (13, 16, 19))
        or (51 <= two <= 55 and length == 16)
        or (2221 <= four <= 2720 and length == 16)
        or (two in (34, 37) and length == 15)
        or ((four == 6011 or two == 65 or 644 <= int(digits[:3]) <= 649) and length in (16, 19))
        or (3528 <= four <= 3589 and length == 16)
        or (two in (36, 38, 30) and length == 14)
        or (two == 62 and 16 <= length <= 19)
    )
    return issued and luhn(digits)


#: A digit's character -> what every second digit counts, and every other.
_DOUBLED = bytes.maketrans(b"0123456789", bytes((0, 2, 4, 6, 8, 1, 3, 5, 7, 9)))
_SINGLE = bytes.maketrans(b"0123456789", bytes(range(10)))


def luhn(digits: bytes) -> bool:
    return (sum(digits[-1::-2].translate(_SINGLE)) + sum(digits[-2::-2].translate(_DOUBLED))) % 10 == 0


def _iban(data: bytes, first: int, end: int) -> tuple[int, int] | None:
    length = _IBAN[data[first : first + 2].decode()]
    text = data[first:end]
    compact = text.translate(None, b" ")[:length]
    if len(compact) < length:
        return None
    at = first + length
    while len(data[first:at].translate(None, b" ")) < length:
        at += 1
    if is_word(char_before(data, first)) or is_word(char_after(data, at)):
        return None
    return (first, at) if mod97(compact.decode()) else None


_AS_NUMBERS = {ord(letter): str(int(letter, 36)) for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}


def mod97(iban: str) -> bool:
    """The check digits of ISO 13616."""
    return int((iban[4:] + iban[:4]).translate(_AS_NUMBERS)) % 97 == 1


def _ip(data: bytes, first: int, end: int) -> tuple[int, int] | None:
    before, after = char_before(data, first), char_after(data, end)
    if is_word(before) or before in (":", ".") or is_word(after) or after == ":":
        return None
    if after == "." and is_word(char_after(data, end + 1)):
        return None
    text = data[first:end].decode()
    if "." in text:
        # Its shape is exact. This host is nobody's.
        return None if text.startswith("127.") or text == "0.0.0.0" else (first, end)  # noqa: S104
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if address.is_loopback or address.is_unspecified or not any(map(str.isdigit, text)):
        # Names with colons between them are code.
        return None
    return first, end


def _ssn(data: bytes, first: int, end: int) -> tuple[int, int] | None:
    if not _apart(data, first, end) or char_before(data, first) == "-" or char_after(data, end) == "-":
        return None
    area, group, serial = data[first : first + 3], data[first + 4 : first + 6], data[first + 7 : end]
    if area in (b"000", b"666") or area >= b"900" or group == b"00" or serial == b"0000":
        return None
    return first, end


def _birth_date(data: bytes, first: int, end: int) -> tuple[int, int] | None:
    if is_word(char_before(data, first)) or is_word(char_after(data, end)):
        return None
    # The words that tell what the date is may stay.
    date = _DATE_ALONE.search(data[first:end])
    return (first + date.start(), end) if date is not None else None


_PLACES: dict[str, Place] = {
    "phone": _phone,
    "iban": _iban,
    "card": _card,
    "ip": _ip,
    "ssn": _ssn,
    "birth_date": _birth_date,
}
