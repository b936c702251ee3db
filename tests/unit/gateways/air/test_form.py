"""Forms as they arrive: in any pieces, with anything inside, cut off anywhere."""

from collections.abc import AsyncIterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from holdfast.gateways.air.errors import AirError
from holdfast.gateways.air.form import AROUND_MAX_BYTES, Form, boundary_of, parameters
from holdfast.objects.errors import IncompleteBody
from tests.unit.gateways.air.asgi import form
from tests.unit.objects.world import run


async def read(body: bytes, size: int, boundary: bytes = b"b") -> tuple[str, bytes]:
    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), size):
            yield body[start : start + size]

    opened = Form(chunks(), boundary)
    content_type = await opened.open("file")
    return content_type, b"".join([bytes(piece) async for piece in opened.file()])


@settings(deadline=None)
@given(st.lists(st.sampled_from([b"\r\n", b"--", b"b", b"\r\n--", b"\r\n--B", b"x"])).map(b"".join), st.integers(1, 40))
@example(b"", 1)
@example(b"\r\n--", 3)
def test_a_file_comes_out_as_it_went_in(data: bytes, size: int) -> None:
    if b"\r\n--b" in b"\r\n" + data:
        return
    assert run(read(form(data, boundary="b"), size)) == ("text/plain", data)


@settings(deadline=None)
@given(st.integers(0, 200), st.integers(1, 50))
def test_a_form_that_is_cut_off_is_no_file(cut: int, size: int) -> None:
    body = form(b"some bytes", boundary="b")
    whole = len(body) - len(b"\r\n")
    if cut < whole:
        with pytest.raises(IncompleteBody):
            run(read(body[:cut], size))


def test_other_fields_may_stand_around_the_file() -> None:
    other = form(b"other", name="note", boundary="b").removesuffix(b"--\r\n") + b"\r\n"
    body = b"preamble\r\n" + other + form(b"data", "a/b", boundary="b").removesuffix(b"--\r\n") + b"\r\n"
    body += form(b"behind", name="more", boundary="b")
    assert run(read(body, 7)) == ("a/b", b"data")
    with pytest.raises(AirError) as refused:
        run(read(form(b"other", name="note", boundary="b"), 7))
    assert (refused.value.status, refused.value.message) == (400, "the form has no field `file`")


@pytest.mark.parametrize(
    "body",
    [
        form(b"x" * AROUND_MAX_BYTES, name="note", boundary="b").removesuffix(b"--\r\n") + b"\r\n" + form(b"", ""),
        b"--b\r\nX: " + b"x" * AROUND_MAX_BYTES,
        form(b"data", boundary="b") + b"x" * AROUND_MAX_BYTES,
        b"x" * 2 * AROUND_MAX_BYTES,
    ],
)
def test_what_stands_around_the_file_is_bounded(body: bytes) -> None:
    with pytest.raises(AirError) as refused:
        run(read(body, 4096))
    assert refused.value.status == 413


def test_parameters_of_a_header() -> None:
    assert parameters('form-data; name="a\\"b; name=c"; FileName = plain') == {
        "name": 'a"b; name=c',
        "filename": "plain",
    }
    assert boundary_of('Multipart/Form-Data; charset=utf-8; boundary="x y"') == b"x y"
    assert boundary_of("multipart/form-data; boundary=") is None
    assert boundary_of("multipart/form-data; boundary=" + "x" * 71) is None
    assert boundary_of("text/plain; boundary=x") is None
