"""What a reader can ask for: other headers in the answer, one part, listings in each form."""

import re
from collections.abc import AsyncIterator
from hashlib import sha256
from html import unescape
from urllib.parse import unquote

import pytest

from holdfast.gateways.s3.metadata import OVERRIDES
from tests.unit.gateways.s3.asgi import Answer, Driver

KEYS = ["a b", "a+b", "a/b&c", "ctl\x01", "dir/x", "dir/y", "tilde~", "ü%41"]
_ENABLE = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"

FORMS = {"V1": [], "V2": [("list-type", "2")], "versions": [("versions", "")]}


@pytest.fixture
async def driver() -> AsyncIterator[Driver]:
    async with Driver().running() as running:
        for key in KEYS:
            await running.request("PUT", f"/bucket/{key}", body=b"abc")
        yield running


def texts(answer: Answer, element: str) -> list[str]:
    return [unescape(text) for text in re.findall(f"<{element}>(.*?)</{element}>", answer.body.decode(), re.DOTALL)]


def test_every_override_is_known() -> None:
    assert set(OVERRIDES) == {
        "response-cache-control", "response-content-disposition", "response-content-encoding",
        "response-content-language", "response-content-type", "response-expires",
    }  # fmt: skip


@pytest.mark.parametrize("name", list(OVERRIDES))
async def test_a_header_of_the_answer_is_overridden(driver: Driver, name: str) -> None:
    header = name.removeprefix("response-")
    await driver.request("PUT", "/bucket/k", headers={header: "kept"}, body=b"x")
    for method, status in (("GET", 200), ("HEAD", 200)):
        answer = await driver.request(method, "/bucket/k", [(name, "asked; for=1")])
        assert (answer.status, answer.headers[header]) == (status, "asked; for=1")
        assert (await driver.request(method, "/bucket/k")).headers[header] == "kept"
    broken = await driver.request("GET", "/bucket/k", [(name, "a\r\nset-cookie: b")])
    assert "set-cookie" not in broken.headers
    assert (await driver.request("PUT", "/bucket/k", [(name, "x")], body=b"x")).status == 501


async def test_a_part_of_an_object_that_was_put_whole(driver: Driver) -> None:
    for method in ("GET", "HEAD"):
        one = await driver.request(method, "/bucket/a b", [("partNumber", "1")])
        assert (one.status, one.headers["content-range"]) == (206, "bytes 0-2/3")
        for number, status in (("2", 400), ("0", 400), ("10001", 400), ("x", 400)):
            assert (await driver.request(method, "/bucket/a b", [("partNumber", number)])).status == status
    both = await driver.request("GET", "/bucket/a b", [("partNumber", "1")], {"range": "bytes=0-1"})
    assert both.status == 400


async def test_no_object_has_a_torrent(driver: Driver) -> None:
    for key in ("a b", "not there"):
        answer = await driver.request("GET", f"/bucket/{key}", [("torrent", "")])
        assert (answer.status, texts(answer, "Code")) == (404, ["NoSuchKey"])
    assert (await driver.request("HEAD", "/bucket/a b", [("torrent", "")])).status == 501


async def test_a_key_that_is_no_text_cannot_be_parsed(driver: Driver) -> None:
    path = "/bucket/%AE%8A-"
    signed = driver.sign("GET", path, [], {}, sha256(b"").hexdigest())
    answer = await driver.send("GET", path, [], signed, [{"type": "http.request"}])
    assert (answer.status, texts(answer, "Message")) == (400, ["Couldn't parse the specified URI."])
    # U+00AE U+008A is text, and so may be a key.
    assert (await driver.request("GET", "/bucket/\xae\x8a-")).status == 404


@pytest.mark.parametrize("form", list(FORMS))
async def test_keys_are_encoded_when_asked(driver: Driver, form: str) -> None:
    plain = await driver.request("GET", "/bucket", FORMS[form])
    # XML cannot hold a control character; Python's unescape drops the reference that stands for it.
    assert texts(plain, "Key") == [key.replace("\x01", "") for key in KEYS]
    assert b"<Key>ctl&#x1;</Key>" in plain.body
    assert texts(plain, "EncodingType") == []
    url = [*FORMS[form], ("encoding-type", "url")]
    encoded = await driver.request("GET", "/bucket", url)
    assert texts(encoded, "EncodingType") == ["url"]
    assert [unquote(key) for key in texts(encoded, "Key")] == KEYS
    assert texts(encoded, "Key")[0] == "a%20b"
    folded = await driver.request("GET", "/bucket", [*url, ("delimiter", "/"), ("prefix", "d")])
    assert (texts(folded, "Delimiter"), texts(folded, "Key")) == (["/"], [])
    assert "<CommonPrefixes><Prefix>dir/</Prefix></CommonPrefixes>" in folded.body.decode()
    assert (await driver.request("GET", "/bucket", [*FORMS[form], ("encoding-type", "xml")])).status == 400


@pytest.mark.parametrize("form", list(FORMS))
@pytest.mark.parametrize("size", [1, 3])
async def test_pages_join_without_gap_or_overlap(driver: Driver, form: str, size: int) -> None:
    await driver.request("PUT", "/bucket", [("versioning", "")], body=_ENABLE)
    for key in KEYS[::2]:
        await driver.request("PUT", f"/bucket/{key}", body=b"again")
    expected = sorted([*KEYS, *KEYS[::2]]) if form == "versions" else KEYS
    found: list[str] = []
    more: list[tuple[str, str]] = []
    for _ in range(30):
        query = [*FORMS[form], ("encoding-type", "url"), ("max-keys", str(size)), *more]
        page = await driver.request("GET", "/bucket", query)
        assert len(texts(page, "Key")) <= size
        found += [unquote(key) for key in texts(page, "Key")]
        if texts(page, "IsTruncated") == ["false"]:
            break
        if form == "V1":
            more = [("marker", found[-1])]
        elif form == "V2":
            more = [("continuation-token", texts(page, "NextContinuationToken")[0])]
        else:
            version = texts(page, "NextVersionIdMarker")[0]
            more = [("key-marker", unquote(texts(page, "NextKeyMarker")[0])), ("version-id-marker", version)]
    assert found == expected


async def test_owners(driver: Driver) -> None:
    for query, count in (
        (FORMS["V1"], len(KEYS)),
        (FORMS["V2"], 0),
        ([*FORMS["V2"], ("fetch-owner", "true")], len(KEYS)),
        ([*FORMS["V2"], ("fetch-owner", "false")], 0),
        (FORMS["versions"], len(KEYS)),
    ):
        assert len(texts(await driver.request("GET", "/bucket", query), "ID")) == count


async def test_what_is_anonymous_is_refused(driver: Driver) -> None:
    for method, path in (("GET", "/"), ("GET", "/bucket"), ("GET", "/bucket/a b"), ("HEAD", "/bucket/a b"),
                         ("PUT", "/bucket/a b"), ("DELETE", "/bucket/a b"), ("POST", "/bucket")):  # fmt: skip
        head = {"host": "localhost", "content-length": "0"}
        assert (await driver.send(method, path, (), head, ())).status == 403
    assert await driver.keys() == KEYS
