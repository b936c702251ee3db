"""Air against ASGI messages: what it answers, and what it does when things break off."""

import asyncio
import logging
from base64 import b64encode
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import pytest

from holdfast.asgi import body
from holdfast.core.crc import crc64nvme
from holdfast.core.errors import Corrupt, Full, NotEnoughFragments
from holdfast.core.ids import Buffer
from holdfast.core.limits import KIB, MIB
from holdfast.core.ranges import ByteRange
from holdfast.gateways.air import app, list_bucket
from holdfast.gateways.air.call import speed
from holdfast.objects.model import PutOptions, Versioning
from holdfast.objects.store import ObjectReader, Store
from tests.unit.gateways.air.asgi import BOUNDARY, Driver, form

FORM = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}


@pytest.fixture
async def driver() -> AsyncIterator[Driver]:
    async with Driver.running() as running:
        yield running


async def test_put_get_list_as_the_original_answers(driver: Driver) -> None:
    put = await driver.put("new-bucket/name.txt", b"one", "text/html")
    assert put.status == 200
    assert list(put.json) == ["message", "time_taken", "speed"]
    assert put.json["message"] == "success"
    assert isinstance(put.json["time_taken"], float)
    assert put.json["speed"].endswith(" Mbps")
    await driver.put("new-bucket/name.txt", b"three", "")
    newest = await driver.get("new-bucket/name.txt")
    assert (newest.status, newest.body, newest.headers["version"]) == (200, b"three", "2")
    first = await driver.get("new-bucket/name.txt", query="version=1")
    assert (first.status, first.body, first.headers["content-type"]) == (200, b"one", "text/html")
    assert first.headers["content-disposition"] == "attachment; filename=name.txt"
    assert first.headers["content-length"] == "3"
    assert float(first.headers["time_taken"]) >= 0
    assert first.headers["speed"].endswith(" Mbps")
    listing = await driver.call("GET", "/list/new-bucket")
    assert list(listing.json) == ["message", "data", "time_taken"]
    assert listing.json["data"][0] == {"filename": "name.txt", "version": "1", "size": 3, "content_type": "text/html"}
    assert listing.json["data"][1]["content_type"] == "application/octet-stream"
    for answer in (put, newest, first, listing):
        assert answer.headers["server-timing"].startswith("total;dur=")
        assert answer.whole


async def test_time_and_speed_are_those_of_the_clock(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    put = Store.put_object

    async def slow(*args: Any, **named: Any) -> Any:
        found = await put(*args, **named)
        await driver.clock.advance(2)
        return found

    monkeypatch.setattr(Store, "put_object", slow)
    answer = await driver.put("bucket/k", b"x" * 1_000_000)
    assert (answer.json["time_taken"], answer.json["speed"]) == (2.0, "4.000 Mbps")
    assert answer.headers["server-timing"] == "total;dur=2000.000"
    assert speed(1_000_000_000, 10) == "800.000 Mbps"


async def test_the_same_objects_as_s3_shows(driver: Driver) -> None:
    headers = {"content-type": "a/b", "content-disposition": "inline", "cache-control": "no-cache"}
    await driver.store.put_object("bucket", "k", b"by other means", PutOptions(headers=headers))
    answer = await driver.get("bucket/k")
    assert answer.body == b"by other means"
    assert {name: answer.headers[name] for name in headers} == headers
    await driver.put("bucket/k", b"by air", "c/d")
    info = await driver.store.object_info("bucket", "k")
    assert (info.size, info.headers["content-type"], info.version) == (6, "c/d", "null")
    # The bucket keeps no versions, so what was replaced is gone, and its number does not come back.
    assert await driver.listed("bucket") == [("k", "2", 6, "c/d")]
    assert (await driver.get("bucket/k", query="version=1")).status == 404


async def test_a_bucket_that_is_made_keeps_versions(driver: Driver) -> None:
    answers = await asyncio.gather(*(driver.put("made-now/k", b"%d" % number) for number in range(8)))
    assert [answer.status for answer in answers] == [200] * 8
    assert (await driver.store.bucket("made-now")).versioning is Versioning.ENABLED
    assert sorted(answer.headers["version"] for answer in answers) == [str(number) for number in range(1, 9)]
    assert [entry[1] for entry in await driver.listed("made-now")] == [str(number) for number in range(1, 9)]
    refused = await driver.put("No_Bucket/k", b"x")
    assert (refused.status, "lower-case" in refused.json["error"]) == (400, True)


@pytest.mark.parametrize("name", ["a/b/c.txt", "/a", "a//b", "..", "a/../b", "ü/é", "a?b#c%20", "end/"])
async def test_names_of_every_kind(driver: Driver, name: str) -> None:
    path = "bucket/" + name.replace("%", "%25").replace("?", "%3F").replace("#", "%23")
    assert (await driver.put(path, name.encode())).status == 200
    assert [info.key for info in (await driver.store.list_objects("bucket")).objects] == [name]
    answer = await driver.get(path)
    assert answer.body.decode() == name
    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.headers["content-disposition"].isascii()
    assert [entry[0] for entry in await driver.listed("bucket")] == [name]
    assert (await driver.call("DELETE", f"/delete/{path}")).status == 200
    assert (await driver.get(path)).status == 404


async def test_delete(driver: Driver) -> None:
    for data in (b"one", b"two", b"three"):
        await driver.put("kept/k", data)
    deleted = await driver.call("DELETE", "/delete/kept/k")
    assert (deleted.status, list(deleted.json)) == (200, ["message", "time_taken"])
    assert (await driver.get("kept/k")).status == 404
    assert (await driver.call("DELETE", "/delete/kept/k")).status == 404
    # The deletion is version 4: no bytes, not listed. The others are as they were.
    assert (await driver.get("kept/k", query="version=4")).status == 404
    assert (await driver.get("kept/k", query="version=2")).body == b"two"
    assert [entry[1] for entry in await driver.listed("kept")] == ["1", "2", "3"]
    assert (await driver.call("DELETE", "/delete/kept/k", "version=2")).status == 200
    assert (await driver.call("DELETE", "/delete/kept/k", "version=2")).status == 404
    assert (await driver.get("kept/k", query="version=2")).status == 404
    assert [entry[1] for entry in await driver.listed("kept")] == ["1", "3"]
    assert (await driver.put("kept/k", b"five")).headers["version"] == "5"
    assert (await driver.call("DELETE", "/delete/kept/k", "version=5")).status == 200
    assert (await driver.put("kept/k", b"six")).headers["version"] == "6"
    for version in (6, 4):  # the deletion too: what was newest before it is back
        assert (await driver.call("DELETE", "/delete/kept/k", f"version={version}")).status == 200
    assert (await driver.get("kept/k")).headers["version"] == "3"
    assert (await driver.get("kept/k", query="version=3")).body == b"three"


@pytest.mark.parametrize(
    ("method", "path", "query", "status"),
    [
        ("GET", "/get/bucket/missing", "", 404),
        ("HEAD", "/get/bucket/missing", "", 404),
        ("GET", "/get/no-bucket/k", "", 404),
        ("GET", "/get/bucket/k", "version=9", 404),
        ("GET", "/get/bucket/k", "version=0", 404),
        ("GET", "/get/bucket/k", "version=x", 400),
        ("GET", "/get/bucket/k", "version=-1", 400),
        ("GET", "/get/bucket/k", "version=", 400),
        ("GET", "/get/bucket/" + "k" * 1025, "", 414),
        ("GET", "/get/bucket/%ff", "", 400),
        ("GET", "/list/no-bucket", "", 404),
        ("GET", "/list/bucket/k", "", 404),
        ("GET", "/get/bucket", "", 404),
        ("GET", "/get/bucket/", "", 404),
        ("GET", "/get//k", "", 404),
        ("GET", "/favicon.ico", "", 404),
        ("POST", "/get/bucket/k", "", 405),
        ("PUT", "/put/bucket/k", "", 405),
        ("POST", "/", "", 405),
        ("POST", "/put/bucket/k", "", 415),
        ("DELETE", "/delete/bucket/k", "", 200),
        ("DELETE", "/delete/bucket/missing", "", 404),
        ("DELETE", "/delete/bucket/k", "version=9", 404),
        ("DELETE", "/delete/no-bucket/k", "", 404),
    ],
)
async def test_honest_statuses(driver: Driver, method: str, path: str, query: str, status: int) -> None:
    await driver.put("bucket/k", b"x")
    answer = await driver.call(method, path, query)
    assert answer.status == status
    if method != "HEAD" and status >= 400:
        assert list(answer.json) == ["error", "time_taken"]
    assert (method == "HEAD") == (answer.body == b"")
    assert ("allow" in answer.headers) == (status == 405)


@pytest.mark.parametrize(
    ("range_", "status", "found"),
    [
        ("bytes=0-4", 206, "bytes 0-4/11"),
        ("bytes=6-", 206, "bytes 6-10/11"),
        ("bytes=-5", 206, "bytes 6-10/11"),
        ("bytes=0-99", 206, "bytes 0-10/11"),
        ("bytes=5-4", 200, None),
        ("lines=1-2", 200, None),
        ("bytes=0-1,3-4", 200, None),
        ("bytes=11-", 416, "bytes */11"),
        ("bytes=-0", 416, "bytes */11"),
    ],
)
async def test_ranges(driver: Driver, range_: str, status: int, found: str | None) -> None:
    data = b"hello world"
    await driver.put("bucket/k", data)
    answer = await driver.get("bucket/k", {"range": range_})
    assert (answer.status, answer.headers.get("content-range")) == (status, found)
    if status == 206 and found is not None:
        start, end = map(int, found.removeprefix("bytes ").removesuffix("/11").split("-"))
        assert answer.body == data[start : end + 1]
        assert answer.headers["content-length"] == str(len(answer.body))
    if status == 200:
        assert answer.body == data
    assert (await driver.get("bucket/k", {"range": range_, "if-range": '"x"'})).body == data


async def test_head_has_no_body(driver: Driver) -> None:
    await driver.put("bucket/k", b"x" * MIB)
    answer = await driver.call("HEAD", "/get/bucket/k")
    assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"", str(MIB))
    assert answer.headers["speed"] == "0.000 Mbps"
    part = await driver.call("HEAD", "/get/bucket/k", headers={"range": "bytes=0-9"})
    assert (part.status, part.headers["content-length"]) == (206, "10")


async def test_large_ones_stream_both_ways(driver: Driver) -> None:
    data = bytes(range(256)) * (20 * KIB)
    sent = form(data)
    pieces = [sent[start : start + 60_000] for start in range(0, len(sent), 60_000)]
    messages = [
        {"type": "http.request", "body": piece, "more_body": position + 1 < len(pieces)}
        for position, piece in enumerate(pieces)
    ]
    headers = {**FORM, "transfer-encoding": "chunked"}
    assert (await driver.send("POST", "/put/bucket/k", headers, messages)).status == 200
    answer = await driver.get("bucket/k")
    assert (answer.body == data, answer.whole) == (True, True)
    left = await driver.send("GET", "/get/bucket/k", {}, [{"type": "http.request"}], stay_after=2)
    assert (left.status, left.whole) == (200, False)
    assert len(left.body) < len(data)


@pytest.mark.parametrize("status", [400, 0])
async def test_what_was_not_sent_whole_is_not_stored(driver: Driver, status: int) -> None:
    sent = form(b"x" * 100_000)
    messages: list[dict[str, Any]] = [{"type": "http.request", "body": sent[:50_000], "more_body": True}]
    messages += [{"type": "http.request", "body": b""} if status else {"type": "http.disconnect"}]
    answer = await driver.send("POST", "/put/made-now/k", {**FORM, "content-length": str(len(sent))}, messages)
    assert answer.status == status
    assert await driver.listed("made-now") == []


async def test_forms_that_are_refused(driver: Driver) -> None:
    assert (await driver.put("bucket/k", b"x", "x" * 257)).status == 400
    assert (await driver.put("bucket/k", b"x", "a\tb")).status == 400
    other = form(b"x", name="other")
    messages = [{"type": "http.request", "body": other}]
    answer = await driver.send("POST", "/put/bucket/k", {**FORM, "content-length": str(len(other))}, messages)
    assert (answer.status, answer.json["error"]) == (400, "the form has no field `file`")
    assert "connection" not in answer.headers
    assert await driver.listed("bucket") == []
    assert (await driver.put("bucket/k", b"x" * 10)).status == 200


async def test_a_version_has_a_crc_and_no_md5(driver: Driver) -> None:
    """A hyphen keeps S3's clients from taking the ETag for an MD5."""
    for key, data in {"k": b"x" * 10_000, "long": b"y" * (2 * MIB + 1)}.items():
        await driver.put(f"bucket/{key}", data)
        info = await driver.store.object_info("bucket", key)
        assert info.etag.endswith("-0")
        assert info.checksums == {"crc64nvme": b64encode(crc64nvme(data).to_bytes(8)).decode()}


async def test_a_silent_sender_is_given_up(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "SILENCE_MAX_SECONDS", 0.01)
    messages = [{"type": "http.request", "body": form(b"x")[:-10], "more_body": True}]
    answer = await driver.send("POST", "/put/bucket/k", {**FORM, "transfer-encoding": "chunked"}, messages)
    assert (answer.status, answer.headers["connection"]) == (408, "close")


async def test_a_refused_body_is_read_to_its_end_when_it_is_short(driver: Driver) -> None:
    async def refused(length: int, **headers: str) -> tuple[int, bool]:
        messages = [{"type": "http.request", "body": b"x" * min(length, 10_000), "more_body": False}]
        given = {"content-type": "text/plain", "content-length": str(length), **headers}
        answer = await driver.send("POST", "/put/bucket/k", given, messages)
        return answer.status, "connection" in answer.headers

    assert await refused(10_000) == (415, False)
    assert await refused(10_000, expect="100-continue") == (415, True)
    assert await refused(65 * MIB) == (415, True)


async def test_a_query_is_utf_8(driver: Driver) -> None:
    """In percent-encoding, as browsers send it, and plain, as curl does."""
    await driver.put("kept/käse", b"")
    for query in ("prefix=k%C3%A4", "prefix=kä"):
        assert [entry[0] for entry in await driver.listed("kept", query)] == ["käse"]
    for path in ("/list/kept", "/get/kept/k"):
        answer = await driver.call("GET", path, "prefix=%FF")
        assert (answer.status, answer.json["error"]) == (400, "the query is not UTF-8")


async def test_listings_of_many_versions(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(list_bucket, "_PIECE_BYTES", 100)
    await driver.put("kept/first", b"")
    for number in range(7):
        await driver.put("kept/k", b"x" * number)
    await driver.put("kept/last", b"")
    versions = [(name, number) for name, number, _, _ in await driver.listed("kept")]
    assert versions == [("first", "1"), *(("k", str(number)) for number in range(1, 8)), ("last", "1")]
    assert [entry[0] for entry in await driver.listed("kept", "prefix=l")] == ["last"]
    assert await driver.listed("kept", "prefix=none") == []
    monkeypatch.setattr(list_bucket, "RUN_MAX_COUNT", 4)
    runs = [number for name, number, _, _ in await driver.listed("kept") if name == "k"]
    assert runs == ["4", "5", "6", "7", "1", "2", "3"]
    pages = Store.list_versions

    async def small(*args: Any, **named: Any) -> Any:
        return await pages(*args, **{**named, "limit": 2})

    monkeypatch.setattr(list_bucket, "RUN_MAX_COUNT", 100)
    monkeypatch.setattr(Store, "list_versions", small)
    assert [(name, number) for name, number, _, _ in await driver.listed("kept")] == versions


async def test_health(driver: Driver) -> None:
    good = await driver.call("GET", "/")
    assert (good.status, good.json["message"]) == (200, "success")
    driver.not_ready = NotEnoughFragments("drives/secret is missing")
    bad = await driver.call("GET", "/")
    assert (bad.status, bad.headers["retry-after"]) == (503, "1")
    assert "secret" not in bad.body.decode()


@pytest.mark.parametrize(("error", "status"), [(Full("f"), 507), (Corrupt("c"), 500), (NotEnoughFragments("n"), 503)])
async def test_our_own_faults(
    driver: Driver,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    status: int,
) -> None:
    async def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(Store, "put_object", fails)
    with caplog.at_level(logging.WARNING, logger=app.__name__):
        assert (await driver.put("bucket/k", b"x")).status == status
    assert caplog.records
    monkeypatch.setattr(Store, "put_object", None)
    with caplog.at_level(logging.ERROR, logger=app.__name__):
        answer = await driver.put("bucket/k", b"x")
    assert (answer.status, answer.json["error"]) == (500, "internal error")


async def test_an_answer_that_breaks_off_is_not_ended(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    await driver.put("bucket/k", b"x" * 3 * MIB)
    read = ObjectReader.read
    closed = False

    async def rotten(self: ObjectReader, range: ByteRange | None = None) -> AsyncGenerator[Buffer, None]:
        nonlocal closed
        try:
            async for piece in read(self, range):
                yield piece
                raise Corrupt("rotten")
        finally:
            closed = True

    monkeypatch.setattr(ObjectReader, "read", rotten)
    with pytest.raises(Corrupt):
        await driver.get("bucket/k")
    assert closed


async def test_other_protocols_are_refused(driver: Driver) -> None:
    with pytest.raises(NotImplementedError):
        await driver.air({"type": "websocket"}, None, None)  # type: ignore[arg-type]
