"""CopyObject and UploadPartCopy, as requests."""

from collections.abc import AsyncIterator
from hashlib import md5
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.limits import PART_MIN_BYTES
from holdfast.core.ranges import ByteRange
from holdfast.gateways.s3.conditions import parse_source_range
from holdfast.gateways.s3.copies import parse_source
from holdfast.gateways.s3.errors import S3Error
from holdfast.objects.model import PutOptions, Versioning
from tests.unit.gateways.s3.asgi import Answer, Driver

_LARGE = b"0123456789" * 20_000
_DATES = {"past": "Thu, 01 Jan 1970 00:00:10 GMT", "future": "Fri, 01 Jan 2100 00:00:00 GMT"}


@pytest.fixture
async def driver() -> AsyncIterator[Driver]:
    async with Driver().running() as running:
        await running.store.create_bucket("other")
        yield running


def _code(answer: Answer) -> str:
    return _text(answer, "Code")


def _text(answer: Answer, name: str) -> str:
    return answer.body.decode().partition(f"<{name}>")[2].partition(f"</{name}>")[0]


async def _copy(driver: Driver, source: str, target: str, **headers: str) -> Answer:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return await driver.request("PUT", target, headers={"x-amz-copy-source": source, **given})


@pytest.mark.parametrize("body", [b"", b"small", _LARGE])
@pytest.mark.parametrize("key", ["k", "a b+c&d=e?versionId=f#g%2F", "ä/漢字"])
async def test_copies_across_buckets(driver: Driver, key: str, body: bytes) -> None:
    headers = {"content-type": "text/x", "x-amz-meta-a": "1", "cache-control": "no-store", "x-amz-tagging": "t=1"}
    await driver.request("PUT", f"/bucket/{key}", headers=headers, body=body)
    answer = await _copy(driver, f"/bucket/{quote(key)}", "/other/copy")
    assert (answer.status, _text(answer, "ETag")) == (200, f"&quot;{md5(body).hexdigest()}&quot;")
    assert _text(answer, "LastModified").endswith("Z")
    found = await driver.request("GET", "/other/copy")
    assert found.body == body
    names = ("content-type", "x-amz-meta-a", "cache-control", "x-amz-tagging-count")
    assert [found.headers[name] for name in names] == ["text/x", "1", "no-store", "1"]


async def test_directives(driver: Driver) -> None:
    headers = {"content-type": "text/x", "x-amz-meta-a": "1", "x-amz-tagging": "t=1"}
    await driver.request("PUT", "/bucket/k", headers=headers, body=b"abc")
    await _copy(driver, "bucket/k", "/bucket/a", x_amz_meta_b="2", content_type="text/y", x_amz_tagging="u=1&v=2")
    kept = await driver.request("HEAD", "/bucket/a")
    assert (kept.headers["x-amz-meta-a"], kept.headers["content-type"]) == ("1", "text/x")
    assert "x-amz-meta-b" not in kept.headers
    replace = {"x_amz_metadata_directive": "REPLACE", "x_amz_tagging_directive": "REPLACE"}
    await _copy(driver, "bucket/k", "/bucket/b", x_amz_meta_b="2", x_amz_tagging="u=1&v=2", **replace)
    replaced = await driver.request("HEAD", "/bucket/b")
    assert (replaced.headers["x-amz-meta-b"], replaced.headers["x-amz-tagging-count"]) == ("2", "2")
    assert replaced.headers["content-type"] == "binary/octet-stream"
    assert "x-amz-meta-a" not in replaced.headers
    for name in ("x_amz_metadata_directive", "x_amz_tagging_directive"):
        assert _code(await _copy(driver, "bucket/k", "/bucket/c", **{name: "MOVE"})) == "InvalidArgument"


async def test_a_copy_onto_itself_must_change_something(driver: Driver) -> None:
    await driver.request("PUT", "/bucket/k", body=_LARGE)
    assert _code(await _copy(driver, "bucket/k", "/bucket/k")) == "InvalidRequest"
    changed = await _copy(driver, "bucket/k", "/bucket/k", x_amz_metadata_directive="REPLACE", x_amz_meta_a="1")
    assert changed.status == 200
    assert (await driver.request("GET", "/bucket/k")).headers["x-amz-meta-a"] == "1"
    summed = await _copy(driver, "bucket/k", "/bucket/k", x_amz_checksum_algorithm="SHA256")
    assert len(_text(summed, "ChecksumSHA256")) == 44
    assert (await driver.request("GET", "/bucket/k")).body == _LARGE


async def test_conditions_on_the_source(driver: Driver) -> None:
    put = await driver.request("PUT", "/bucket/k", body=b"abc")
    etag = put.headers["etag"]
    for headers, good in (
        ({"if_match": etag}, True),
        ({"if_match": '"no"'}, False),
        ({"if_none_match": etag}, False),
        ({"if_none_match": '"no"'}, True),
        ({"if_modified_since": _DATES["past"]}, True),
        ({"if_modified_since": _DATES["future"]}, False),
        ({"if_unmodified_since": _DATES["past"]}, False),
        ({"if_unmodified_since": _DATES["future"]}, True),
        ({"if_match": etag, "if_unmodified_since": _DATES["past"]}, True),
        ({"if_none_match": etag, "if_modified_since": _DATES["past"]}, False),
    ):
        named = {f"x_amz_copy_source_{name}": value for name, value in headers.items()}
        answer = await _copy(driver, "bucket/k", "/bucket/copy", **named)
        assert answer.status == (200 if good else 412), headers


async def test_conditions_on_the_target(driver: Driver) -> None:
    await driver.request("PUT", "/bucket/k", body=b"abc")
    assert (await _copy(driver, "bucket/k", "/bucket/copy", if_none_match="*")).status == 200
    assert (await _copy(driver, "bucket/k", "/bucket/copy", if_none_match="*")).status == 412
    assert (await _copy(driver, "bucket/k", "/bucket/copy", if_match='"no"')).status == 412


async def test_versions(driver: Driver) -> None:
    await driver.store.set_versioning("bucket", Versioning.ENABLED)
    first = (await driver.request("PUT", "/bucket/k", body=b"first")).headers["x-amz-version-id"]
    await driver.request("PUT", "/bucket/k", body=b"second")
    answer = await _copy(driver, f"bucket/k?versionId={first}", "/bucket/k")
    assert answer.headers["x-amz-copy-source-version-id"] == first
    assert answer.headers["x-amz-version-id"] != first
    assert (await driver.request("GET", "/bucket/k")).body == b"first"
    marker = (await driver.request("DELETE", "/bucket/k")).headers["x-amz-version-id"]
    assert _code(await _copy(driver, "bucket/k", "/bucket/copy")) == "NoSuchKey"
    assert _code(await _copy(driver, f"bucket/k?versionId={marker}", "/bucket/copy")) == "InvalidRequest"
    assert _code(await _copy(driver, f"bucket/k?versionId={'0' * 32}", "/bucket/copy")) == "NoSuchVersion"


async def test_what_is_no_source(driver: Driver) -> None:
    for source, code in (
        ("", "InvalidArgument"),
        ("/", "InvalidArgument"),
        ("bucket", "InvalidArgument"),
        ("bucket/", "InvalidArgument"),
        ("bucket/k?versionId=", "InvalidArgument"),
        ("bucket/%ff", "InvalidArgument"),
        ("Bu_cket/k", "NoSuchBucket"),
        ("nowhere/k", "NoSuchBucket"),
        ("bucket/none", "NoSuchKey"),
        ("bucket/" + "k" * 1025, "KeyTooLongError"),
    ):
        assert _code(await _copy(driver, source, "/bucket/copy")) == code, source
    assert not await driver.keys()


async def test_a_copy_has_no_body_and_is_only_a_put_of_an_object(driver: Driver) -> None:
    await driver.request("PUT", "/bucket/k", body=b"abc")
    headers = {"x-amz-copy-source": "bucket/k"}
    assert _code(await driver.request("PUT", "/bucket/copy", headers=headers, body=b"x")) == "InvalidRequest"
    for method, path, query in (
        ("POST", "/bucket/k", [("uploads", "")]),
        ("PUT", "/third", []),
        ("DELETE", "/bucket/k", []),
    ):
        assert (await driver.request(method, path, query, headers)).status == 501
    owner = {"x-amz-source-expected-bucket-owner": "nobody", **headers}
    assert (await driver.request("PUT", "/bucket/copy", headers=owner)).status == 403
    encrypted = {"x-amz-copy-source-server-side-encryption-customer-algorithm": "AES256", **headers}
    assert (await driver.request("PUT", "/bucket/copy", headers=encrypted)).status == 501
    assert await driver.keys() == ["k"]


async def test_parts_from_ranges(driver: Driver) -> None:
    body = bytes(range(256)) * (PART_MIN_BYTES // 256 + 10)
    await driver.request("PUT", "/bucket/k", body=body)
    started = await driver.request(
        "POST", "/bucket/whole", [("uploads", "")], {"x-amz-checksum-algorithm": "CRC32", "x-amz-tagging": "a=b"}
    )
    upload = _text(started, "UploadId")

    async def part(number: int, **headers: str) -> Answer:
        given = {"x-amz-copy-source": "bucket/k"} | {name.replace("_", "-"): value for name, value in headers.items()}
        query = [("partNumber", str(number)), ("uploadId", upload)]
        return await driver.request("PUT", "/bucket/whole", query, given)

    assert _code(await part(1, x_amz_copy_source_range="bytes=0-99999999")) == "InvalidRange"
    assert _code(await part(1, x_amz_copy_source_range="0-5")) == "InvalidArgument"
    assert (await part(1, x_amz_copy_source_if_match='"no"')).status == 412
    assert _code(await part(0)) == "InvalidArgument"
    first = await part(1, x_amz_copy_source_range=f"bytes=7-{PART_MIN_BYTES + 6}")
    second = await part(2)
    assert _text(first, "ETag") == f"&quot;{md5(body[7 : PART_MIN_BYTES + 7]).hexdigest()}&quot;"
    assert _text(first, "ChecksumCRC32")
    named = "".join(
        f"<Part><PartNumber>{number}</PartNumber><ETag>{_text(answer, 'ETag')}</ETag></Part>"
        for number, answer in enumerate((first, second), 1)
    )
    document = f"<CompleteMultipartUpload>{named}</CompleteMultipartUpload>".encode()
    done = await driver.request("POST", "/bucket/whole", [("uploadId", upload)], body=document)
    assert done.status == 200
    assert _text(done, "ChecksumCRC32").endswith("-2")
    found = await driver.request("GET", "/bucket/whole")
    assert found.body == body[7 : PART_MIN_BYTES + 7] + body
    assert found.headers["x-amz-tagging-count"] == "1"
    one = await _copy(driver, "bucket/whole", "/bucket/one")
    assert _text(one, "ETag") == f"&quot;{md5(found.body).hexdigest()}&quot;"


@given(st.text(alphabet=st.characters(max_codepoint=255), max_size=40))
def test_any_source_is_parsed_or_refused(text: str) -> None:
    try:
        bucket, key, version = parse_source(text)
    except S3Error:
        return
    assert bucket
    assert key
    assert version != ""


@given(st.text(min_size=1, max_size=30).filter(lambda key: key.encode("utf-8", "ignore").decode() == key))
def test_a_quoted_key_comes_back(key: str) -> None:
    assert parse_source(f"/bucket/{quote(key)}?versionId=7") == ("bucket", key, "7")


@given(st.text(max_size=30) | st.from_regex(r"bytes=\d{0,20}-\d{0,20}"))
def test_any_source_range_is_parsed_or_refused(text: str) -> None:
    try:
        found = parse_source_range(text)
    except S3Error:
        return
    assert isinstance(found, ByteRange)
    assert text == f"bytes={text[6:].partition('-')[0]}-{text.rpartition('-')[2]}"
    assert (found.start, found.end - 1) == tuple(int(number) for number in text[6:].split("-"))


async def test_a_put_that_must_not_repeat_what_is_there(driver: Driver) -> None:
    etag = (await driver.request("PUT", "/bucket/k", (), {"if-none-match": '"any"'}, b"abc")).headers["etag"]
    assert (await driver.request("PUT", "/bucket/k", (), {"if-none-match": etag}, b"abc")).status == 412
    assert (await driver.request("PUT", "/bucket/k", (), {"if-none-match": '"any"'}, b"other")).status == 200
    assert (await driver.request("GET", "/bucket/k")).body == b"other"
    assert (await driver.request("DELETE", "/bucket/k", headers={"if-none-match": etag})).status == 501


async def test_five_gibibytes_are_s3s_limit_of_one_part(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other gateways have none, so a source may be longer than what can be copied at once."""
    await driver.store.put_object("bucket", "k", _LARGE, PutOptions(md5=False))
    for module in ("copies", "put_object", "multipart"):
        monkeypatch.setattr(f"holdfast.gateways.s3.{module}.PART_MAX_BYTES", len(_LARGE) - 1)
    started = await driver.request("POST", "/other/new", [("uploads", "")])
    part = [("partNumber", "1"), ("uploadId", _text(started, "UploadId"))]
    copied = {"x-amz-copy-source": "bucket/k"}
    ranged = {**copied, "x-amz-copy-source-range": f"bytes=0-{len(_LARGE) - 2}"}
    # A length that is not announced, in HTTP's chunked coding.
    chunked = {"transfer-encoding": "chunked"}
    for query in ([], part):
        for headers, body in ((copied, b""), (chunked, _LARGE)):
            answer = await driver.request("PUT", "/other/new", query, headers, body=body)
            assert (answer.status, _code(answer)) == (400, "InvalidRequest")
            assert str(len(_LARGE) - 1) in _text(answer, "Message")
    assert (await driver.request("PUT", "/other/new", part, ranged)).status == 200
