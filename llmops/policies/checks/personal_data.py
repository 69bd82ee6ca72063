"""Personal data by shape and checksum: what can be recognised without guessing at names."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from typing import Annotated, Any, Literal, get_args

from msgspec import Meta

from llmops.core.verdicts import AFTER, REDACT
from llmops.policies.checks.base import FINDS_PLACES, SettingRefused, Span, TextCheck, TextSettings
from llmops.policies.patterns import Pattern, Shapes, char_after, char_before, is_word

Kind = Literal["email", "phone", "iban", "card", "ip", "ssn", "birth_date"]
KINDS: tuple[str, ...] = get_args(Kind)
#: A date is personal only beside a word that makes it one; whoever wants that says so.
USUAL = tuple(kind for kind in KINDS if kind != "birth_date")

_MONTH = r"(?i:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]{0,6}"
_DATE = (
    r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}|[0-9]{1,2}[./-][0-9]{1,2}[./-](?:[0-9]{4}|[0-9]{2})"
    rf"|[0-9]{{1,2}}(?:st|nd|rd|th)?\.? {_MONTH},? [0-9]{{4}}|{_MONTH} [0-9]{{1,2}}(?:st|nd|rd|th)?,? [0-9]{{4}}"
)
_SHAPES = {
    "email": r"[A-Za-z0-9][A-Za-z0-9._%+'-]{0,63}@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,62})\.){1,4}[A-Za-z]{2,24}",
    # Country code and number (ITU-T E.164: at most 15 digits), or a North American number with its area code.
    "phone": r"\+[1-9](?:[ .()/-]{0,2}[0-9]){7,14}|(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}[ .-])[2-9][0-9]{2}[ .-][0-9]{4}",
    "iban": r"[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]){11,30}",
    "card": r"[2-6][0-9]{12,18}|[2-6][0-9]{3}(?:[ -][0-9]{4}){2}[ -][0-9]{1,7}|3[0-9]{3}[ -][0-9]{6}[ -][0-9]{4,5}",
    "ip": r"(?:[0-9]{1,3}\.){3}[0-9]{1,3}|(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}",
    "ssn": r"[0-9]{3}-[0-9]{2}-[0-9]{4}",
    "birth_date": rf"(?i:date of birth|birth ?date|birthday|born(?: on)?|dob|geboren am|geburtsdatum)[ :=-]{{1,4}}(?:is |on )?(?:{_DATE})",
}
#: IBAN registry (SWIFT, release 99): length of an IBAN by country.
_LENGTHS = (
    "AD:24 AE:23 AL:28 AT:20 AZ:28 BA:20 BE:16 BG:22 BH:22 BI:27 BR:29 BY:28 CH:21 CR:22 CY:28 CZ:24 DE:22 DJ:27 DK:18 DO:28 "
    "EE:20 EG:29 ES:24 FI:18 FK:18 FO:18 FR:27 GB:22 GE:22 GI:23 GL:18 GR:27 GT:28 HN:28 HR:21 HU:28 IE:22 IL:23 IQ:23 IS:26 "
    "IT:27 JO:30 KW:30 KZ:20 LB:28 LC:32 LI:21 LT:20 LU:20 LV:21 LY:25 MC:27 MD:24 ME:22 MK:19 MN:20 MR:27 MT:31 MU:30 NI:28 "
    "NL:18 NO:15 OM:23 PK:24 PL:28 PS:29 PT:25 QA:29 RO:24 RS:22 RU:33 SA:24 SC:31 SD:18 SE:24 SI:19 SK:24 SM:27 SO:23 ST:25 "
    "SV:28 TL:23 TN:24 TR:26 UA:29 VA:22 VG:24 XK:20 YE:30"
)
_IBAN = dict(part.split(":") for part in _LENGTHS.split())
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
        self._shapes = Shapes({kind: shape for kind, shape in _SHAPES.items() if kind in kinds})
        self.hint, self.opening = self._shapes.wide, self._shapes.wide_opening
        others = {kind: shape for kind, shape in _SHAPES.items() if kind in kinds and kind != "ip"}
        self._others = Shapes(others) if others else None
        self._except = tuple(one.lower().encode() for one in settings.except_ending)

    def spans(self, data: bytes, start: int = 0) -> list[Span]:
        found: list[Span] = []
        no_address = 0
        while (match := self._search(data, start, no_address)) is not None:
            kind, first, end = match
            place = _PLACES[kind](data, first, end)
            if place is None:
                start = _next(data, first)
                if kind == "ip":
                    no_address = _end_of_address(data, first)
                continue
            since, (first, end) = first, place
            start = end
            if self._except and data[first:end].lower().endswith(self._except):
                continue
            found.append(Span(first, end, kind, since))
        return found

    def _search(self, data: bytes, start: int, no_address: int) -> tuple[str, int, int] | None:
        """The next candidate. Before ``no_address`` no address can stand apart, so none is looked for."""
        if start < no_address:
            if self._others is not None:
                match = self._others.search(data, start, min(len(data), no_address + 4 * self._others.reach))
                if match is not None and match[1] < no_address:
                    return match
            start = no_address
        return self._shapes.search(data, start)

    def open_at(self, data: bytes, start: int = 0) -> int:
        return self._shapes.open_at(data, start)


Place = Callable[[bytes, int, int], "tuple[int, int] | None"]


_ADDRESS = frozenset(b"0123456789abcdefABCDEF:.")


def _next(data: bytes, first: int) -> int:
    """Where to look on after what was none: behind the letters and digits that it began with. Nothing within them could be
    one, because it would not stand apart."""
    at = first
    while at < len(data) and data[at] < 128 and is_word(chr(data[at])):
        at += 1
    return max(at, first + 1)


def _end_of_address(data: bytes, at: int) -> int:
    while at < len(data) and data[at] in _ADDRESS:
        at += 1
    return at


def _apart(data: bytes, first: int, end: int) -> bool:
    return not is_word(char_before(data, first)) and not is_word(char_after(data, end))


def _email(data: bytes, first: int, end: int) -> tuple[int, int] | None:
    return first, end


def _phone(data: bytes, first: int, end: int) -> tuple[int, int] | None:
    before = char_before(data, first)
    if is_word(before) or before in ("+", ".", "-") or is_word(char_after(data, end)):
        return None
    return first, end


def _card(data: bytes, first: int, end: int) -> tuple[int, int] | None:
    if not _apart(data, first, end):
        return None
    digits = bytes(byte for byte in data[first:end] if 48 <= byte <= 57).decode()
    return (first, end) if is_card(digits) else None


def is_card(digits: str) -> bool:
    """A card number by its issuer's prefix and length (ISO/IEC 7812) and checksum (Luhn 1960)."""
    length = len(digits)
    two, four = int(digits[:2]), int(digits[:4])
    issued = (
        (digits[0] == "4" and length in (13, 16, 19))
        or (51 <= two <= 55 and length == 16)
        or (2221 <= four <= 2720 and length == 16)
        or (two in (34, 37) and length == 15)
        or ((four == 6011 or two == 65 or 644 <= int(digits[:3]) <= 649) and length in (16, 19))
        or (3528 <= four <= 3589 and length == 16)
        or (two in (36, 38, 30) and length == 14)
        or (two == 62 and 16 <= length <= 19)
    )
    return issued and luhn(digits)


def luhn(digits: str) -> bool:
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def _iban(data: bytes, first: int, end: int) -> tuple[int, int] | None:
    if is_word(char_before(data, first)):
        return None
    length = int(_IBAN.get(data[first : first + 2].decode(), 0))
    compact, at = bytearray(), first
    while at < end and len(compact) < length:
        if data[at] != 32:
            compact.append(data[at])
        at += 1
    if not length or len(compact) < length or is_word(char_after(data, at)):
        return None
    return (first, at) if mod97(compact.decode()) else None


def mod97(iban: str) -> bool:
    """The check digits of ISO 13616."""
    return int("".join(str(int(char, 36)) for char in iban[4:] + iban[:4])) % 97 == 1


def _ip(data: bytes, first: int, end: int) -> tuple[int, int] | None:
    before, after = char_before(data, first), char_after(data, end)
    if is_word(before) or before in (":", ".") or is_word(after) or after == ":":
        return None
    if after == "." and is_word(char_after(data, end + 1)):
        return None
    text = data[first:end].decode()
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if address.is_loopback or address.is_unspecified:
        return None
    if address.version == 6 and (sum(map(bool, text.split(":"))) < 3 or not any(map(str.isdigit, text))):
        # Two names with two colons between them are code.
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
    if not _apart(data, first, end):
        return None
    # The words that tell what the date is may stay.
    date = _DATE_ALONE.search(data[first:end])
    return (first + date.start(), end) if date is not None else None


_PLACES: dict[str, Place] = {
    "email": _email,
    "phone": _phone,
    "iban": _iban,
    "card": _card,
    "ip": _ip,
    "ssn": _ssn,
    "birth_date": _birth_date,
}
