"""Tags of objects and buckets, as requests."""

from collections.abc import AsyncIterator
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.gateways.s3.errors import S3Error
from holdfast.gateways.s3.tagging import parse_document, parse_header
from holdfast.objects.errors import InvalidTag
from holdfast.objects.model import Versioning
from holdfast.objects.tags import KEY_MAX_CHARS, VALUE_MAX_CHARS, check_tags
from tests.unit.gateways.s3.asgi import Answer, Driver


@pytest.fixture
async def driver() -> AsyncIterator[Driver]:
    async with Driver().running() as running:
        yield running


def _code(answer: Answer) -> str:
    return answer.body.decode().partition("<Code>")[2].partition("</Code>")[0]


def _document(*tags: tuple[str, str]) -> bytes:
    inside = "".join(f"<Tag><Key>{key}</Key><Value>{value}</Value></Tag>" for key, value in tags)
    return f"<Tagging><TagSet>{inside}</TagSet></Tagging>".encode()


async def _tags(driver: Driver, path: str, *query: tuple[str, str]) -> list[tuple[str, str]]:
    answer = await driver.request("GET", path, [("tagging", ""), *query])
    assert answer.status == 200, answer.body
    return parse_document(answer.body)


async def test_tags_of_objects(driver: Driver) -> None:
    await driver.request("PUT", "/bucket/k", headers={"x-amz-tagging": "a=1&b=%C3%BC+x&c="}, body=b"abc")
    assert await _tags(driver, "/bucket/k") == [("a", "1"), ("b", "ü x"), ("c", "")]
    before = await driver.request("HEAD", "/bucket/k")
    assert before.headers["x-amz-tagging-count"] == "3"
    assert (await driver.request("PUT", "/bucket/k", [("tagging", "")], body=_document(("d", "4")))).status == 200
    assert await _tags(driver, "/bucket/k") == [("d", "4")]
    after = await driver.request("GET", "/bucket/k")
    assert (after.body, after.headers["x-amz-tagging-count"]) == (b"abc", "1")
    assert after.headers["last-modified"] == before.headers["last-modified"]
    assert (await driver.request("DELETE", "/bucket/k", [("tagging", "")])).status == 204
    assert await _tags(driver, "/bucket/k") == []
    assert "x-amz-tagging-count" not in (await driver.request("HEAD", "/bucket/k")).headers
    await driver.request("PUT", "/bucket/k", body=b"abc")
    for method in ("GET", "PUT", "DELETE"):
        missing = await driver.request(method, "/bucket/none", [("tagging", "")], body=_document(("a", "1")))
        assert _code(missing) == "NoSuchKey"


async def test_tags_belong_to_versions(driver: Driver) -> None:
    await driver.store.set_versioning("bucket", Versioning.ENABLED)
    ids = []
    for number in range(3):
        put = await driver.request("PUT", "/bucket/k", headers={"x-amz-tagging": f"n={number}"}, body=b"abc")
        ids.append(("versionId", put.headers["x-amz-version-id"]))
    answer = await driver.request("PUT", "/bucket/k", [("tagging", ""), ids[1]], body=_document(("n", "changed")))
    assert answer.headers["x-amz-version-id"] == ids[1][1]
    await driver.request("PUT", "/bucket/k", [("tagging", ""), ids[2]], body=_document(("n", "newest")))
    found = [(await _tags(driver, "/bucket/k", named))[0][1] for named in ids]
    assert found == ["0", "changed", "newest"]
    marker = (await driver.request("DELETE", "/bucket/k")).headers["x-amz-version-id"]
    for method in ("GET", "PUT", "DELETE"):
        body = _document(("a", "1")) if method == "PUT" else b""
        assert _code(await driver.request(method, "/bucket/k", [("tagging", "")], body=body)) == "NoSuchKey"
        named = await driver.request(method, "/bucket/k", [("tagging", ""), ("versionId", marker)], body=body)
        assert _code(named) == "MethodNotAllowed"
        unknown = await driver.request(method, "/bucket/k", [("tagging", ""), ("versionId", "0" * 32)], body=body)
        assert _code(unknown) == "NoSuchVersion"


async def test_tags_of_buckets(driver: Driver) -> None:
    assert _code(await driver.request("GET", "/bucket", [("tagging", "")])) == "NoSuchTagSet"
    assert (await driver.request("PUT", "/bucket", [("tagging", "")], body=_document(("a", "1")))).status == 204
    await driver.store.set_versioning("bucket", Versioning.ENABLED)
    assert await _tags(driver, "/bucket") == [("a", "1")]
    many = [(f"k{number}", "v") for number in range(51)]
    assert _code(await driver.request("PUT", "/bucket", [("tagging", "")], body=_document(*many))) == "InvalidTag"
    assert (await driver.request("PUT", "/bucket", [("tagging", "")], body=_document(*many[:50]))).status == 204
    assert (await driver.request("DELETE", "/bucket", [("tagging", "")])).status == 204
    assert _code(await driver.request("GET", "/bucket", [("tagging", "")])) == "NoSuchTagSet"
    assert _code(await driver.request("GET", "/nowhere", [("tagging", "")])) == "NoSuchBucket"


@pytest.mark.parametrize(
    "tags",
    [
        [("", "v")],
        [("k" * 129, "v")],
        [("k", "v" * 257)],
        [("aws:k", "v")],
        [("k!", "v")],
        [("k", "{")],
        [("k", "1"), ("k", "2")],
        [(f"k{number}", "v") for number in range(11)],
    ],
)
async def test_tags_that_may_not_be(driver: Driver, tags: list[tuple[str, str]]) -> None:
    await driver.request("PUT", "/bucket/k", body=b"abc")
    answer = await driver.request("PUT", "/bucket/k", [("tagging", "")], body=_document(*tags))
    assert _code(answer) == "InvalidTag"
    for method, query in (("PUT", []), ("POST", [("uploads", "")])):
        answer = await driver.request(method, "/bucket/new", query, {"x-amz-tagging": urlencode(tags)}, b"")
        assert _code(answer) in ("InvalidTag", "InvalidArgument")
    assert await driver.keys() == ["k"]


@pytest.mark.parametrize(
    "document",
    [
        b"", b"<Tagging/>", b"<Tagging><TagSet><Tag><Key>a</Key></Tag></TagSet></Tagging>",
        b"<Tagging><TagSet/><TagSet/></Tagging>", b"<Tagging><TagSet><X><Key>a</Key><Value/></X></TagSet></Tagging>",
    ],
)  # fmt: skip
async def test_what_is_no_document_of_tags(driver: Driver, document: bytes) -> None:
    await driver.request("PUT", "/bucket/k", headers={"x-amz-tagging": "a=1"}, body=b"abc")
    for path in ("/bucket", "/bucket/k"):
        assert _code(await driver.request("PUT", path, [("tagging", "")], body=document)) == "MalformedXML"
    assert await _tags(driver, "/bucket/k") == [("a", "1")]
    checked = await driver.request(
        "PUT", "/bucket/k", [("tagging", "")], {"content-md5": "AAAAAAAAAAAAAAAAAAAAAA=="}, _document(("b", "2"))
    )
    assert _code(checked) == "BadDigest"


_TEXT = st.text(st.characters(categories=["L", "N", "Zs"], include_characters="_.:/=+-@"))


@given(st.dictionaries(_TEXT.filter(bool), _TEXT, max_size=10))
def test_tags_come_back_from_a_header(tags: dict[str, str]) -> None:
    assert dict(parse_header(urlencode(tags))) == tags
    fitting = {key[:KEY_MAX_CHARS]: value[:VALUE_MAX_CHARS] for key, value in tags.items() if key[:4] != "aws:"}
    assert check_tags(list(fitting.items()), 10) == fitting


@given(st.text(alphabet=st.characters(max_codepoint=255), max_size=60))
def test_any_header_is_parsed_or_refused(text: str) -> None:
    try:
        check_tags(parse_header(text), 10)
    except (S3Error, InvalidTag):
        return


@given(st.binary(max_size=80) | st.binary(max_size=30).map(lambda inside: b"<Tagging><TagSet>" + inside))
def test_any_document_is_parsed_or_refused(document: bytes) -> None:
    with pytest.raises(S3Error):
        parse_document(document)
