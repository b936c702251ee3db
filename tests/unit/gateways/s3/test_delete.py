"""Deletions on conditions: by header, and for each key of DeleteObjects."""

from collections.abc import AsyncIterator

import pytest

from holdfast.gateways.s3.call import http_date, iso_date
from holdfast.objects.access import WRITE, Access
from tests.unit.gateways.s3.asgi import Answer, Driver

_ETAG = '"900150983cd24fb0d6963f7d28e17f72"'  # of "abc"
_VERSIONING = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
_WRONG = {
    "ETag": ['"x"'],
    "Size": ["4"],
    "LastModifiedTime": ["Thu, 01 Jan 1970 00:00:00 GMT", "1970-01-01T00:00:00.000Z"],
}
_HEADERS = {
    "ETag": "if-match",
    "Size": "x-amz-if-match-size",
    "LastModifiedTime": "x-amz-if-match-last-modified-time",
}


@pytest.fixture
async def driver() -> AsyncIterator[Driver]:
    async with Driver().running() as running:
        yield running


def right(driver: Driver) -> dict[str, list[str]]:
    now = driver.clock.now_ns()
    times = [http_date(now // 10**9), iso_date(now), iso_date(now).replace("Z", "+00:00")]
    return {"ETag": [_ETAG, _ETAG.strip('"'), "*"], "Size": ["3"], "LastModifiedTime": times}


async def put(driver: Driver, key: str = "k") -> str:
    answer = await driver.request("PUT", f"/bucket/{key}", body=b"abc")
    return answer.headers.get("x-amz-version-id", "")


async def multi(driver: Driver, *objects: str) -> Answer:
    body = "".join(f"<Object>{item}</Object>" for item in objects)
    return await driver.request("POST", "/bucket", [("delete", "")], body=f"<Delete>{body}</Delete>".encode())


@pytest.mark.parametrize("condition", list(_WRONG))
async def test_each_condition_in_each_place(driver: Driver, condition: str) -> None:
    for value in _WRONG[condition]:
        await put(driver)
        refused = await driver.request("DELETE", "/bucket/k", headers={_HEADERS[condition]: value})
        assert refused.status == 412
        answer = await multi(driver, f"<Key>k</Key><{condition}>{value}</{condition}>")
        assert b"<Code>PreconditionFailed</Code>" in answer.body
        assert await driver.keys() == ["k"]
    for value in right(driver)[condition]:
        await put(driver)
        accepted = await driver.request("DELETE", "/bucket/k", headers={_HEADERS[condition]: value})
        assert (accepted.status, await driver.keys()) == (204, [])
        await put(driver)
        answer = await multi(driver, f"<Key>k</Key><{condition}>{value}</{condition}>")
        assert b"<Deleted><Key>k</Key></Deleted>" in answer.body
        assert await driver.keys() == []


async def test_each_key_has_its_own(driver: Driver) -> None:
    for key in "abcd":
        await put(driver, key)
    answer = await multi(
        driver,
        "<Key>a</Key>",
        f"<Key>b</Key><ETag>{_ETAG}</ETag><Size>3</Size>",
        f"<Key>c</Key><ETag>{_ETAG}</ETag><Size>4</Size>",
        "<Key>none</Key><ETag>*</ETag>",
        "<Key>d</Key><Size>3</Size>",
    )
    text = answer.body.decode()
    assert [key for key in "abcd" if f"<Deleted><Key>{key}</Key>" in text] == ["a", "b", "d"]
    assert "<Error><Key>c</Key><Code>PreconditionFailed</Code>" in text
    assert "<Error><Key>none</Key><Code>NoSuchKey</Code>" in text
    assert await driver.keys() == ["c"]


@pytest.mark.parametrize("value", ["many", "-1", ""])
async def test_what_is_no_size_or_time(driver: Driver, value: str) -> None:
    await put(driver)
    for name in ("x-amz-if-match-size", "x-amz-if-match-last-modified-time"):
        assert (await driver.request("DELETE", "/bucket/k", headers={name: value})).status == 400
    assert await driver.keys() == ["k"]


async def test_the_condition_is_on_the_version_that_is_named(driver: Driver) -> None:
    await driver.request("PUT", "/bucket", [("versioning", "")], body=_VERSIONING)
    first = await put(driver)
    await driver.request("PUT", "/bucket/k", body=b"second")
    by_id = [("versionId", first)]
    wrong = await driver.request("DELETE", "/bucket/k", by_id, {"x-amz-if-match-size": "6"})
    assert wrong.status == 412
    assert (await driver.request("DELETE", "/bucket/k", headers={"if-match": _ETAG})).status == 412
    assert (await driver.request("GET", "/bucket/k", by_id)).body == b"abc"
    gone = await driver.request("DELETE", "/bucket/k", by_id, {"if-match": _ETAG})
    assert (gone.status, gone.headers["x-amz-version-id"]) == (204, first)
    assert (await driver.request("DELETE", "/bucket/k", by_id, {"if-match": "*"})).status == 404
    assert (await driver.request("DELETE", "/bucket/k", by_id)).status == 204
    marked = await driver.request("DELETE", "/bucket/k", headers={"x-amz-if-match-size": "6"})
    assert marked.headers["x-amz-delete-marker"] == "true"
    assert (await driver.request("DELETE", "/bucket/k", headers={"if-match": "*"})).status == 404
    marker = [("versionId", marked.headers["x-amz-version-id"])]
    assert (await driver.request("DELETE", "/bucket/k", marker, {"if-match": "*"})).status == 404
    assert (await driver.request("DELETE", "/bucket/k", marker)).status == 204
    assert (await driver.request("GET", "/bucket/k")).body == b"second"


async def test_whoever_may_not_read_may_not_ask(driver: Driver) -> None:
    await put(driver)
    driver.credentials.granted = Access(grants={"bucket": WRITE})
    assert (await driver.request("DELETE", "/bucket/k", headers={"x-amz-if-match-size": "3"})).status == 403
    assert (await multi(driver, "<Key>k</Key><Size>3</Size>")).status == 403
    assert await driver.keys() == ["k"]
    assert b"<Deleted>" in (await multi(driver, "<Key>k</Key>")).body
