"""Forms on their way through: read whatever pieces they come in, sent on byte-true, refused where readers could differ."""

from __future__ import annotations

import asyncio
import io
import random
import re
from typing import Any

import pytest
from django.core.files.uploadhandler import MemoryFileUploadHandler
from django.http.multipartparser import MultiPartParser
from hypothesis import assume, example, given
from hypothesis import strategies as st

from llmops.core.errors import InvalidRequest
from llmops.gateway.forms import multipart
from llmops.gateway.forms.multipart import Form, Parser, boundary_of
from tests.gateway.forms import GOOD, body_of, field, form_of, sent
from tests.trying import tries

# ---------------------------------------------------------------------- any pieces, any order

boundaries = st.text("abcXYZ019'()+_,-./:=?", min_size=1, max_size=70).map(str.encode)
names = st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=12).filter(
    lambda name: name not in ("model", "stream") and name == name.strip()
)
contents = st.one_of(
    st.binary(max_size=60),
    st.lists(st.sampled_from([b"\r", b"\n", b"-", b"--", b"b", b"\r\n--"])).map(b"".join),
)
parts = st.lists(
    st.tuples(names, contents, st.none() | st.sampled_from(["a.wav", "b c.mp3", "ünï.png", ""])), max_size=5
)


@tries(300)
@given(
    boundaries,
    parts,
    st.integers(0, 5),
    st.integers(0, 2**32),
    st.sampled_from([b"", b"\r\n", b"\r\n\r\n"]),
    st.sampled_from([b"", b"\r\n", b" \r\n", b"\n", b"\r\n\r\n \t"]),
)
def test_any_pieces_and_any_order_give_the_same_body_with_another_model(
    boundary: bytes,
    others: list[tuple[str, bytes, str | None]],
    place: int,
    seed: int,
    before: bytes,
    epilogue: bytes,
) -> None:
    mark = b"--" + boundary
    assume(all(mark not in content and mark not in name.encode() for name, content, _ in others))
    chosen = [field(name, content, file=file) for name, content, file in others]
    chosen.insert(place, field("model", b"mine", "Content-Type: text/plain; charset=utf-8"))
    body = body_of(boundary, *chosen, preamble=before, epilogue=epilogue)
    pick = random.Random(seed)
    cuts = sorted(pick.randrange(len(body) + 1) for _ in range(pick.randrange(12)))
    pieces = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]

    async def run() -> tuple[Form, bytes, bytes, bytes]:
        form = await form_of(pieces, boundary)
        try:
            same = await sent(form, {})
            changed = await sent(form, {"model": b"the-provider's"})
            longer = await sent(form, {"model": b"x"}, ("temperature", b"0"))
        finally:
            form.close()
        return form, same, changed, longer

    form, same, changed, longer = asyncio.run(run())
    assert same == body
    place = min(place, len(others))
    chosen[place] = chosen[place][: -len(b"mine")] + b"the-provider's"
    assert changed == body_of(boundary, *chosen, preamble=before, epilogue=epilogue)
    chosen[place] = chosen[place][: -len(b"the-provider's")] + b"x"
    added = [*chosen, field("temperature", b"0")]
    assert longer == body_of(boundary, *added, preamble=before, epilogue=epilogue)
    found = [
        (part.name, body[part.start : part.end], part.file) for part in form.parts if part.name != "model"
    ]
    assert found == [(name, content, file is not None) for name, content, file in others]
    assert form.text("model", longest=10) == "mine"


@tries(200)
@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=6))
def test_whatever_comes_is_read_or_refused_the_same_in_any_pieces(noise: bytes, cuts: list[int]) -> None:
    body = body_of(b"b", field("a", b"1"), noise, field("c", noise))

    def read(pieces: list[bytes]) -> Any:
        parser = Parser(b"b")
        try:
            for piece in pieces:
                parser.feed(piece)
            parser.end()
        except InvalidRequest as error:
            return error.message
        return [(part.name, part.file, part.start, part.end, part.value) for part in parser.parts]

    ends = sorted(min(cut, len(body)) for cut in cuts)
    split = [body[a:b] for a, b in zip([0, *ends], [*ends, len(body)], strict=True)]
    assert read(split) == read([body]) == read([bytes([byte]) for byte in body])


HEAD = b"Content-Disposition: form-data; name="
#: What forms are made of, and what readers stumble over.
odds = st.sampled_from(
    [
        b"", b"\r\n", b"\n", b"\r", b"--bb", b"--bb--", b"\r\n--bb\r\n", b"\r\n--bb--\r\n", b"\r\n\r\n", HEAD, b'"a"', b"a",
        b'; filename="f"', b"; name=c", b"; name*=utf-8''z", b"; filename*0=x", b" ", b"\t", b";", b'"', b"\\", b"-", b"=", b":", b"*",
        b"Content-Type: text/plain", b"; charset=utf-16", b"Content-Transfer-Encoding: base64", b"YWJj", b"%22", b"\xc2\xa0",
    ]
)  # fmt: skip
changes = st.lists(st.tuples(st.integers(0, 400), st.sampled_from([0, 0, 1, 2, 5]), odds), max_size=4)


@tries(400)
@given(st.lists(st.booleans(), min_size=1, max_size=3), changes)
@example([False, False], [(0, 0, b"x\n")])
@example([False], [(74, 0, b"\r\n" + HEAD + b"n\r\n\r\n9")])
@example([False], [(39, 0, b" ")])
@example([False], [(52, 0, b"--bb\r\n" + HEAD + b"n\r\n\r\n9")])
def test_what_is_read_here_another_reader_reads_alike(
    files: list[bool], changes: list[tuple[int, int, bytes]]
) -> None:
    """Django's, which is as lenient as any: a form that it reads otherwise is refused."""
    body = bytearray(body_of(b"bb", *(field("b", b"v", file="f" if file else None) for file in files)))
    for at, cut, odd in changes:
        at %= len(body) + 1
        body[at : at + cut] = odd
    # A file without a name is none to some; no field that is read here may be one.
    assume(re.search(rb'filename\*?=[ \t"]*["\r;]', body) is None)
    parser = Parser(b"bb")
    try:
        parser.feed(bytes(body))
        parser.end()
    except InvalidRequest:
        return
    named = [part for part in parser.parts if part.name]
    meta = {"CONTENT_TYPE": "multipart/form-data; boundary=bb", "CONTENT_LENGTH": len(body)}
    fields, uploads = MultiPartParser(meta, io.BytesIO(body), [MemoryFileUploadHandler()], "utf-8").parse()
    assert sorted(part.name for part in named if not part.file) == sorted(key for key, _ in all_of(fields))
    read = [body[part.start : part.end].decode("utf-8", "replace") for part in named if not part.file]
    assert sorted(read) == sorted(value for _, value in all_of(fields))
    whole = [bytes(body[part.start : part.end]) for part in named if part.file]
    assert sorted(whole) == sorted(upload.read() for _, upload in all_of(uploads))


def all_of(found: Any) -> list[tuple[str, Any]]:
    return [(key, value) for key in found for value in found.getlist(key)]


# ---------------------------------------------------------------------- what is read


async def test_names_may_be_quoted_bare_or_of_any_alphabet() -> None:
    form = await form_of(
        body_of(
            b"b",
            b"content-disposition:form-data;name=bare\r\n\r\n1",
            b'CONTENT-DISPOSITION: form-data; NAME="q\\"uo;ted\\\\"\r\nX-More: yes\r\n\r\n2',
            'Content-Disposition: form-data; name="größe"; filename="日本.wav"\r\n\r\n3'.encode(),
            b"Content-Disposition: form-data; filename*=UTF-8''%e2.wav; name=file\r\n\r\n4",
            b"Content-Disposition: form-data; name=empty\r\n\r\n",
        )
    )
    found = [(part.name, part.file, part.value) for part in form.parts]
    assert found == [
        ("bare", False, b"1"),
        ('q"uo;ted\\', False, b"2"),
        ("größe", True, None),
        ("file", True, None),
        ("empty", False, b""),
    ]


async def test_a_field_too_long_to_keep_goes_through_but_cannot_be_read() -> None:
    long = b"x" * (multipart.MAX_FIELD + 1)
    body = body_of(b"b", field("prompt", long), field("model", b"m"))
    form = await form_of(body)
    assert form.named("prompt")[0].size == len(long)
    with pytest.raises(InvalidRequest, match="prompt: longer than"):
        form.text("prompt", longest=100)
    assert await sent(form, {}) == body


@pytest.mark.parametrize(
    ("content_type", "says"),
    [
        (None, "says nothing"),
        (b"application/json", "says application/json"),
        (b"multipart/form-data", "no boundary"),
        (b"multipart/form-data; boundary=", "no boundary"),
        (b'multipart/form-data; boundary="a\nb"', "no boundary"),
        (b"multipart/mixed; boundary=b", "says multipart/mixed"),
        # Who leaves the blank out finds boundaries where others find none.
        (b'multipart/form-data; boundary="b "', "no boundary"),
        (b"multipart/form-data; boundary=b; boundary=c", "more than one boundary"),
        (b"multipart/form-data; Boundary=b; boundary*=utf-8''c", "more than one boundary"),
    ],
)
def test_a_content_type_that_names_no_form_is_refused(content_type: bytes | None, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says) as found:
        boundary_of(content_type)
    assert found.value.param == "Content-Type"


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        (b"multipart/form-data; boundary=abc", b"abc"),
        (b"Multipart/Form-Data;charset=utf-8;BOUNDARY=abc", b"abc"),
        (b'multipart/form-data; boundary="a b;c\\"d"; x=1', b'a b;c"d'),
        (b"multipart/form-data; boundary=----WebKitFormBoundaryX'=?", b"----WebKitFormBoundaryX'=?"),
    ],
)
def test_boundaries_are_read_quoted_or_not(content_type: bytes, boundary: bytes) -> None:
    assert boundary_of(content_type) == boundary


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "no part"),
        (b"nothing of the kind", "no part"),
        (b"--b", "no part"),
        (body_of(b"other", GOOD), "no part"),
        (body_of(b"b", GOOD)[:-8], "cut short"),
        (b"--b\r\n" + GOOD, "cut short"),
        (b"--b\r\nContent-Disp", "cut short"),
        (body_of(b"b", GOOD).replace(b"--b\r\n", b"--b x\r\n"), "after a boundary"),
        (body_of(b"b", b"\r\nvalue"), "no header Content-Disposition"),
        (body_of(b"b", b"Content-Type: text/plain\r\n\r\nvalue"), "no header Content-Disposition"),
        (body_of(b"b", b"Content-Disposition: attachment; name=a\r\n\r\n"), "not form-data"),
        (body_of(b"b", b"Content-Disposition: form-data\r\n\r\n"), "no plain name"),
        (body_of(b"b", b"Content-Disposition: form-data; name*=utf-8''model\r\n\r\n"), "no plain name"),
        (body_of(b"b", b"Content-Disposition: form-data; name=a; name=model\r\n\r\n"), "gives name twice"),
        (body_of(b"b", b'Content-Disposition: form-data; name="mo\\del"\r\n\r\n'), "backslash"),
        (body_of(b"b", b'Content-Disposition: form-data; name="a\r\n\r\n'), "not well formed"),
        (body_of(b"b", b"Content-Disposition: form-data; name=\xff\r\n\r\n"), "not UTF-8"),
        (body_of(b"b", b"Content-Disposition: form-data;\r\n name=model\r\n\r\n"), "not well formed"),
        (body_of(b"b", b"Content-Disposition: form-data; name=a\nX: y\r\n\r\n"), "not well formed"),
        (
            body_of(b"b", GOOD.replace(b"\r\n\r\n", b"\r\nContent-Disposition: form-data; name=x\r\n\r\n")),
            "two headers",
        ),
        (body_of(b"b", b"X: " + b"x" * 20_000 + b"\r\n" + GOOD), "longer than"),
        (body_of(b"b", field("file", b"a\n--b\r\n" + GOOD, file="f")), "bare line feed"),
        (b"--b\r\nContent-Disposition: form-data; name=a\r\n\r\n--b--\r\n", "no line between"),
        (body_of(b"b", *[GOOD] * 300), "more than 256 parts"),
        # A form of which another reader, one that takes bare line feeds before the first part, sees only the preamble.
        (
            body_of(b"b", GOOD, preamble=b"x\n" + body_of(b"b", GOOD).replace(b"\r\n", b"\n") + b"\r\n"),
            "does not begin with the boundary",
        ),
        (body_of(b"b", GOOD, preamble=b"\n"), "bare line feed"),
        (body_of(b"b", GOOD, preamble=b"x--b\r\n" + GOOD + b"\r\n"), "does not begin with the boundary"),
        (body_of(b"b", GOOD, preamble=GOOD + b"\r\n"), "does not begin with the boundary"),
        # A part that ends where others read on, and what follows is another one.
        (body_of(b"b", field("prompt", b"x--b\r\n" + GOOD)), "within a line"),
        (body_of(b"b", field("file", b"x--b\r\n" + GOOD, file="f")), "within a line"),
        (body_of(b"b", field("a", b"", "X-More: --b")), "within a line"),
        (body_of(b"b", GOOD, epilogue=b"\r\n" + body_of(b"b", GOOD)), "behind the boundary that closes"),
        # To some readers even this is a part.
        (body_of(b"b", GOOD, epilogue=b"\r\n" + GOOD), "behind the boundary that closes"),
        (body_of(b"b", GOOD, epilogue=b" and more\r\n--b--\r\n"), "after a boundary"),
        (body_of(b"b", GOOD, epilogue=b" " * 100), "after a boundary"),
        (body_of(b"b", GOOD).replace(b"--b\r\n", b"--b" + b" " * 100 + b"\r\n"), "after a boundary"),
        (
            body_of(b"b", field("prompt", b"c2VjcmV0", "Content-Transfer-Encoding: base64")),
            "part 1 is encoded",
        ),
        (
            body_of(b"b", field("f", b"=41", "content-transfer-encoding: Quoted-Printable", file="f")),
            "part 1 is encoded",
        ),
        (
            body_of(b"b", field("a", b"", "Content-Transfer-Encoding: 8bit", "Content-Transfer-Encoding: x")),
            "two headers Content-Transfer-Encoding",
        ),
        (
            body_of(b"b", field("a", b"", "Content-Type: a/b", "content-type: c/d")),
            "two headers Content-Type",
        ),
        (
            body_of(b"b", field("prompt", b"+AHM-", "Content-Type: text/plain; charset=utf-7")),
            "charset of part 1",
        ),
        (
            body_of(b"b", field("a", b"", "Content-Type: text/plain; charset=utf-8; charset*=x''utf-16")),
            "charset of part 1",
        ),
        (
            body_of(b"b", field("prompt", b"gr\xc3\xbcn", "Content-Type: text/plain; charset=ISO-8859-1")),
            "charset of part 1",
        ),
        (body_of(b"b", GOOD, field("_charset_", b"utf-16le")), "_charset_"),
        (
            body_of(b"b", field("prompt", b"", 'Content-Type: multipart/mixed; boundary="c"')),
            "Part 1 is a form itself",
        ),
        (
            body_of(b"b", b"Content-Disposition: form-data; name=a; name*0=mo; name*1=del\r\n\r\n"),
            "no plain name",
        ),
        (body_of(b"b", b"Content-Disposition: form-data; name=mo del\r\n\r\n"), "quotation marks"),
        (body_of(b"b", GOOD, field(" n", b"9")), "blanks around it"),
        (body_of(b"b", GOOD, field("n\xa0", b"9")), "blanks around it"),
        (body_of(b"b", GOOD, field("n\t", b"9")), "blanks around it"),
        (body_of(b"b", b"Content-Disposition: form-data; name=a; filename*0=b\r\n\r\n"), "in pieces"),
    ],
)
async def test_a_form_that_is_not_one_is_refused_with_a_reason(body: bytes, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says) as found:
        await form_of(body)
    assert found.value.code == "invalid_multipart"
    with pytest.raises(InvalidRequest, match=says):
        await form_of([bytes([byte]) for byte in body] or [b""])


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ([field("model", b"a"), field("model", b"b")], "given 2 times"),
        ([field("model", b"a", file="f")], "not a file"),
        ([field("other", b"a")], "missing"),
        ([field("model", b"")], "empty"),
        ([field("model", b"\xff")], "UTF-8"),
        ([field("model", b"x" * 201)], "longer"),
    ],
)
async def test_a_field_is_read_as_what_it_must_be(parts: list[bytes], says: str) -> None:
    form = await form_of(body_of(b"b", *parts))
    with pytest.raises(InvalidRequest, match=says) as found:
        form.text("model", longest=200, required=True)
    assert found.value.param == "model"


@pytest.mark.parametrize("other", ["model[]", "model[0]", "model[name]"])
async def test_a_field_that_some_readers_take_for_another_is_given_once(other: str) -> None:
    form = await form_of(body_of(b"b", field("model", b"cheap"), field(other, b"dear")))
    with pytest.raises(InvalidRequest, match="give it once, as model") as found:
        form.text("model", longest=200)
    assert found.value.param == other
    assert form.text("models", longest=200) == ""


@pytest.mark.parametrize("value", [b"--b", b"so\r\n--b\r\nContent-Disposition: form-data; name=n\r\n\r\n9"])
async def test_no_part_is_made_of_what_is_put_in_place_of_a_value(value: bytes) -> None:
    form = await form_of(body_of(b"b", GOOD))
    for how in ({"model": value}, [("n", value)]):
        with pytest.raises(InvalidRequest, match="use another boundary") as found:
            form.upload(how if isinstance(how, dict) else {}, how if isinstance(how, list) else ())
        assert found.value.param in ("model", "n")


async def test_what_leaves_a_content_as_it_is_may_be_said() -> None:
    more = ("Content-Type: text/plain; charset=UTF-8", "Content-Transfer-Encoding: 8bit")
    sound = ("Content-Type: audio/x; charset=latin-1", "Content-Transfer-Encoding: binary")
    # As Apache's client for Java says of every field.
    model = field(
        "model", b"m", "Content-Type: text/plain; charset=ISO-8859-1", "Content-Transfer-Encoding: 8bit"
    )
    parts = [field("prompt", "ü".encode(), *more), model, field("file", b"x", *sound, file="f")]
    form = await form_of(body_of(b"b", field("_charset_", b"UTF-8"), *parts))
    assert form.text("prompt", longest=10) == "ü"
    assert form.text("model", longest=10) == "m"
    assert [part.file for part in form.parts] == [False, False, False, True]
