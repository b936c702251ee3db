"""XML, ranges, conditions, queries, keys and numbers from outside: right, or refused, never anything else."""

from collections.abc import Callable
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core import errors as core
from holdfast.core.errors import HoldfastError
from holdfast.core.ranges import ByteRange
from holdfast.gateways.s3 import conditions, xml
from holdfast.gateways.s3.call import encode_key, is_bucket_name, split_path, split_query, unquoted
from holdfast.gateways.s3.errors import STATUS, S3Error, from_holdfast
from holdfast.objects import errors as objects


def _refusal(call: Callable[[], object]) -> str | None:
    """The code that a call was refused with; None when it was not."""
    try:
        call()
    except S3Error as error:
        return error.code
    return None


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"<Delete>",
        b"<Other/>",
        b"<Delete/><Delete/>",
        b'<!DOCTYPE Delete [<!ENTITY a "aaaa">]><Delete>&a;</Delete>',
        b'<!DOCTYPE Delete SYSTEM "file:///etc/passwd"><Delete/>',
        b"<Delete>&unknown;</Delete>",
        b"<?run me?><Delete/>",
        b"<Delete>" + b"<a>" * 20 + b"</a>" * 20 + b"</Delete>",
        b"<Delete>" + b"<a/>" * 100_000 + b"</Delete>",
        b"<Delete>\xff</Delete>",
    ],
)
def test_documents_that_are_refused(document: bytes) -> None:
    with pytest.raises(S3Error) as error:
        xml.parse(document, "Delete")
    assert error.value.code == "MalformedXML"


def test_documents_are_read_with_and_without_namespaces() -> None:
    for document in (
        b'<Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Quiet>true</Quiet></Delete>',
        b"<s:Delete xmlns:s='x'>\n <s:Quiet>true</s:Quiet>\n</s:Delete>",
    ):
        assert xml.parse(document, "Delete").text_of("Quiet") == "true"
    with pytest.raises(S3Error):
        xml.parse(b"<D><A>1</A><A>2</A></D>", "D").text_of("A")


@given(st.binary(max_size=200))
def test_any_document_is_read_or_refused(document: bytes) -> None:
    assert _refusal(lambda: xml.parse(document, "Delete")) in (None, "MalformedXML")


@given(st.text())
def test_text_is_written_so_that_readers_see_it(text: str) -> None:
    legal = "".join(c for c in text if c in "\t\n\r" or (c >= " " and c not in "\ufffe\uffff"))
    root = ET.fromstring(xml.document("R", [xml.element("T", legal)], namespace=False))
    assert root[0].text == (legal or None)
    assert b"<" not in xml.escape(text).encode("utf-8", "surrogatepass")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (None, None),
        ("bytes=0-0", (0, 1)),
        ("bytes=5-", (5, 10)),
        ("bytes=-3", (7, 10)),
        ("bytes=-30", (0, 10)),
        ("bytes=3-99", (3, 10)),
        (" bytes=3-4 ", (3, 5)),
        ("bytes=4-3", None),
        ("bytes=-", None),
        ("bytes=0-1,3-4", None),
        ("items=0-1", None),
        ("bytes=x-y", None),
        ("bytes=٣-٤", None),
    ],
)
def test_ranges(text: str | None, found: tuple[int, int] | None) -> None:
    assert conditions.parse_range(text, 10) == (None if found is None else ByteRange(*found))


@pytest.mark.parametrize("text", ["bytes=10-", "bytes=10-11", "bytes=-0", "bytes=9999999999999999999-"])
def test_ranges_outside(text: str) -> None:
    with pytest.raises(S3Error) as error:
        conditions.parse_range(text, 10)
    assert error.value.status == 416
    with pytest.raises(S3Error):
        conditions.parse_range("bytes=0-0", 0)


@given(st.text(max_size=40) | st.from_regex(r"\Abytes=\d{0,22}-\d{0,22}\Z"), st.integers(0, 2**50))
def test_any_range_lies_inside_or_is_refused(text: str, size: int) -> None:
    refusal = _refusal(lambda: conditions.parse_range(text, size))
    assert refusal in (None, "InvalidRange")
    if refusal is None:
        found = conditions.parse_range(text, size)
        assert found is None or 0 <= found.start < found.end <= size


_EPOCH = "Thu, 01 Jan 1970 00:00:10 GMT"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"if-match": '"e"'}, 200),
        ({"if-match": "e"}, 200),
        ({"if-match": '"x", "e"'}, 200),
        ({"if-match": "*"}, 200),
        ({"if-match": '"x"'}, 412),
        ({"if-none-match": '"x"'}, 200),
        ({"if-none-match": '"e"'}, 304),
        ({"if-none-match": 'W/"e"'}, 304),
        ({"if-none-match": "*"}, 304),
        ({"if-modified-since": _EPOCH}, 304),
        ({"if-modified-since": "Thu, 01 Jan 1970 00:00:09 GMT"}, 200),
        ({"if-modified-since": "nonsense"}, 200),
        ({"if-unmodified-since": _EPOCH}, 200),
        ({"if-unmodified-since": "Thu, 01 Jan 1970 00:00:09 GMT"}, 412),
        ({"if-match": '"e"', "if-unmodified-since": "Thu, 01 Jan 1970 00:00:09 GMT"}, 200),
        ({"if-none-match": '"x"', "if-modified-since": _EPOCH}, 200),
    ],
)
def test_conditional_reads(headers: dict[str, str], status: int) -> None:
    refusal = _refusal(lambda: conditions.check_read(headers, "e", 10))
    assert (200 if refusal is None else STATUS[refusal]) == status


@given(st.text(max_size=60))
def test_any_condition_is_decided(text: str) -> None:
    for name in ("if-match", "if-none-match", "if-modified-since", "if-unmodified-since"):
        refusal = _refusal(lambda name=name: conditions.check_read({name: text}, "e", 10))  # type: ignore[misc]
        assert refusal in (None, "NotModified", "PreconditionFailed")
    conditions.range_applies({"if-range": text}, "e", 10)
    unquoted(text)


@given(st.binary(max_size=100))
def test_any_query_and_path_are_split(raw: bytes) -> None:
    assert len(split_query(raw)) <= raw.count(b"&") + 1
    refusal = _refusal(lambda: split_path(b"/" + raw, ""))
    assert refusal in (None, "InvalidURI")
    if refusal is None:
        "".join(split_path(b"/" + raw, "")).encode()


@given(st.text(min_size=1).filter(lambda text: text.isprintable()))
def test_keys_come_back_from_the_encoding_of_listings(key: str) -> None:
    encoded = encode_key(key)
    assert encoded.isascii()
    assert split_query(b"k=" + encoded.encode())[0][1] == key


@pytest.mark.parametrize("name", ["abc", "a.b.c", "1bucket", "a--b", "x" * 63])
def test_bucket_names(name: str) -> None:
    assert is_bucket_name(name)


@pytest.mark.parametrize(
    "name", ["", "ab", "x" * 64, "Abc", "a_b", "a..b", "-abc", "abc-", "1.2.3.4", "xn--abc", "health", "a\nb", "a.-b"]
)
def test_bucket_names_that_are_refused(name: str) -> None:
    assert not is_bucket_name(name)


def _tree(cls: type[HoldfastError]) -> set[type[HoldfastError]]:
    return {cls}.union(*(_tree(sub) for sub in cls.__subclasses__()))


def test_every_error_of_ours_has_an_answer() -> None:
    for cls in _tree(HoldfastError):
        if not cls.__module__.startswith("holdfast."):
            continue
        error = cls.__new__(cls)
        Exception.__init__(error, "message")
        answer = from_holdfast(error)
        assert STATUS[answer.code] == answer.status
    assert from_holdfast(objects.NoSuchObject("k")).code == "NoSuchKey"
    assert from_holdfast(objects.BucketNotEmpty("k")).status == 409
    assert from_holdfast(core.Full("/dev/secret")).status == 507
    assert "/dev/secret" not in from_holdfast(core.Full("/dev/secret")).message
    assert from_holdfast(core.NotEnoughFragments()).status == 503
