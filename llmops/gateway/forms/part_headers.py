"""What the headers of a part of a form say: its name, whether it is a file, in which charset it is. Format: RFC 7578, section 4, over
RFC 2183. What must be decoded first, or put together, is refused: few readers do that alike.
"""

from __future__ import annotations

import re

from llmops.core.errors import InvalidRequest

#: ``;name=value``
PARAMETER = re.compile(rb';\s*([^\s=;"]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;"]*)')
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_QUOTED = re.compile(rb'\\["\\]')
TOKEN = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
#: Headers of a part that say how it is to be read: two of one are one too many.
_TELLING = (b"content-disposition", b"content-type", b"content-transfer-encoding")
#: What leaves a content as it is (RFC 2045, section 6.2).
_AS_IT_IS = frozenset((b"", b"7bit", b"8bit", b"binary"))
UTF_8 = frozenset((b"utf-8", b"utf8", b"us-ascii", b"ascii"))
#: Read like UTF-8 where there is ASCII alone; some clients say it of every field.
_LATIN = frozenset((b"iso-8859-1", b"latin1", b"latin-1", b"windows-1252"))


def named(lines: bytes, number: int) -> tuple[str, bool, bool]:
    """The name of a part, whether it is a file, and whether it is a field that says it is no UTF-8, by its headers. Raises
    ``InvalidRequest``, naming the part by its ``number``."""
    said: dict[bytes, bytes] = {}
    for line in lines.split(b"\r\n") if lines else ():
        header, colon, value = line.partition(b":")
        if not colon or not TOKEN.fullmatch(header) or b"\n" in line or b"\r" in line or b"\0" in line:
            raise broken(f"A header of part {number} is not well formed.")
        header = header.lower()
        if header in _TELLING:
            if header in said:
                raise broken(f"Part {number} has two headers {header.decode().title()}.")
            said[header] = value
    if b"content-disposition" not in said:
        raise broken(f"Part {number} has no header Content-Disposition, so it has no name.")
    name, file = _disposed(said[b"content-disposition"], number)
    if said.get(b"content-transfer-encoding", b"").strip().lower() not in _AS_IT_IS:
        raise broken(
            f"The content of part {number} is encoded; send it as it is, without Content-Transfer-Encoding."
        )
    kind, _, rest = said.get(b"content-type", b"").partition(b";")
    if kind.strip().lower().startswith(b"multipart/"):
        raise broken(f"Part {number} is a form itself; send what it holds as parts of this one.")
    latin = False
    for key, value in () if file else PARAMETER.findall(b";" + rest):
        if not key.lower().startswith(b"charset") or (charset := unquoted(value).lower()) in UTF_8:
            continue
        latin = charset in _LATIN
        if not latin:
            raise broken(f"The charset of part {number} is not UTF-8.")
    return name, file, latin


def _disposed(disposition: bytes, number: int) -> tuple[str, bool]:
    """What ``Content-Disposition`` says: the name of a part, and whether it is a file."""
    kind, _, rest = disposition.partition(b";")
    if kind.strip().lower() != b"form-data":
        raise broken(f"Content-Disposition of part {number} is not form-data.")
    rest = rest.rstrip(b" \t;")
    rest = b";" + rest if rest else b""
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(rest):
        match = PARAMETER.match(rest, at)
        if match is None:
            raise broken(f"Content-Disposition of part {number} is not well formed.")
        key = match[1].lower()
        if key in found:
            raise broken(f"Content-Disposition of part {number} gives {key.decode('latin-1')[:40]} twice.")
        if key.startswith(b"filename*") and key != b"filename*":
            # RFC 2231 puts a value together from several; few readers do.
            raise broken(f"Content-Disposition of part {number} gives its filename in pieces.")
        found[key] = match[2]
        at = match.end()
    raw = found.get(b"name")
    if raw is None or any(key.startswith(b"name*") for key in found):
        raise broken(f"Part {number} has no plain name in its Content-Disposition.")
    try:
        name = unquoted(raw).decode("utf-8")
    except UnicodeDecodeError:
        raise broken(f"The name of part {number} is not UTF-8 text.") from None
    if b"\\" in _QUOTED.sub(b"", raw):
        raise broken(f"The name of part {number} holds a backslash that quotes nothing.")
    if name != name.strip() or _CONTROL.search(name):
        raise broken(f"The name of part {number} has blanks around it, or a control character in it.")
    if not raw.startswith(b'"') and not TOKEN.fullmatch(raw.strip()):
        raise broken(f"The name of part {number} needs quotation marks around it.")
    return name, b"filename" in found or b"filename*" in found


def unquoted(raw: bytes) -> bytes:
    """The value of a parameter without the quotation marks around it, and what they quoted within it."""
    raw = raw.strip()
    if raw.startswith(b'"') and raw.endswith(b'"') and len(raw) >= 2:
        return re.sub(rb"\\(.)", rb"\1", raw[1:-1], flags=re.DOTALL)
    return raw


def broken(said: str, param: str | None = None) -> InvalidRequest:
    return InvalidRequest(said, param=param, code="invalid_multipart")
