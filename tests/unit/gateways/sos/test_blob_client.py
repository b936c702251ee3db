"""Lists of ids as they arrive: cut anywhere, with anything in them, and what is no list."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.errors import RemoteProtocolError
from holdfast.gateways.sos.blob_client import ITEM_MAX_BYTES, _IdList, _names_blob
from holdfast.gateways.sos.blobs import is_id


def read(text: bytes, cuts: list[int]) -> list[str]:
    reading, found, start = _IdList(), list[str](), 0
    for cut in [*sorted(cuts), len(text)]:
        found += reading.feed(text[start:cut])
        start = cut
    reading.finish()
    return found


@given(
    st.lists(st.one_of(st.text("abc09", min_size=1, max_size=9), st.text(max_size=9))),
    st.data(),
    st.booleans(),
    st.sampled_from([None, 1, 3]),
)
def test_lists_cut_anywhere(names: list[str], data: st.DataObject, ascii: bool, indent: int | None) -> None:
    text = json.dumps(names, ensure_ascii=ascii, indent=indent).encode()
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=9))
    assert read(text, cuts) == [name for name in names if is_id(name)]


def test_strings_may_hold_what_separates_them() -> None:
    assert read(b'[",", "a", "\\",", "b"]', [3, 9]) == ["a", "b"]


def test_a_string_without_end_is_no_list() -> None:
    with pytest.raises(RemoteProtocolError):
        read(b'["' + b"a" * 2 * ITEM_MAX_BYTES, list(range(0, 2 * ITEM_MAX_BYTES, 1000)))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[",
        b'["a"',
        b'["a","b',
        b'"a"',
        b"null",
        b'{"a":"b"}',
        b"<html>",
        b"[1]",
        b"]",
        b'["a"]]',
        b'["a""b"]',
        b'["a",]',
        b'[,"a"]',
    ],
)
@pytest.mark.parametrize("cut", [0, 1, 3])
def test_what_is_no_list_or_was_cut_off(text: bytes, cut: int) -> None:
    with pytest.raises(RemoteProtocolError):
        read(text, [cut])


@pytest.mark.parametrize(
    ("answer", "stored"),
    [
        (b'{"id":"a","size":3,"status":"OK"}', True),
        (b'{"id":"a","status":"OK","size":3}', True),
        (b'{"id":"a","size":4,"status":"OK"}', False),
        (b'{"id":"b","size":3,"status":"OK"}', False),
        (b'{"id":"a","size":"3"}', False),
        (b'{"id":"a"}', False),
        (b"[]", False),
        (b"OK", False),
        (b"", False),
    ],
)
def test_only_an_answer_with_the_right_id_and_size_is_a_success(answer: bytes, stored: bool) -> None:
    assert _names_blob(answer, "a", 3) == stored
