"""The application against ASGI messages: what it answers, and what it does when things break off."""

import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from hashlib import sha256
from typing import Any

import pytest

from holdfast.asgi import body, sending
from holdfast.core.errors import Corrupt, Full, HoldfastError, NotEnoughFragments
from holdfast.core.ids import Buffer
from holdfast.core.limits import MIB
from holdfast.core.ranges import ByteRange
from holdfast.gateways.s3 import Settings, app, checksums
from holdfast.gateways.s3.routing import VERBS
from holdfast.gateways.s3.sigv4 import STREAMING_SIGNED, UNSIGNED_PAYLOAD
from holdfast.objects.model import PutOptions
from holdfast.objects.store import ObjectReader, Store
from holdfast.testing.signing import CHUNKED, chunked_length, signature
from tests.unit.gateways.s3.asgi import Answer, Driver
from tests.unit.gateways.s3.signing import SIGNER, identity

_ABC_SHA256 = "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0="


@pytest.fixture
async def driver() -> AsyncIterator[Driver]:
    async with Driver().running() as running:
        yield running


def _code(answer: Answer) -> str:
    return answer.body.decode().partition("<Code>")[2].partition("</Code>")[0]


async def test_every_answer_says_who_gave_it(driver: Driver) -> None:
    good = await driver.request("PUT", "/bucket/k", body=b"abc")
    bad = await driver.request("GET", "/bucket/none")
    unsigned = await driver.send("GET", "/bucket/k", (), {"host": "localhost"}, ())
    ids = set()
    for answer in (good, bad, unsigned):
        ids.add(answer.headers["x-amz-request-id"])
        assert answer.headers["x-amz-id-2"]
        assert "total;dur=" in answer.headers["server-timing"]
    assert len(ids) == 3
    assert good.headers["etag"] == '"900150983cd24fb0d6963f7d28e17f72"'
    assert (bad.status, _code(bad)) == (404, "NoSuchKey")
    assert "<Key>none</Key><Resource>/bucket/none</Resource>" in bad.body.decode()
    assert f"<RequestId>{bad.headers['x-amz-request-id']}</RequestId>" in bad.body.decode()
    assert (unsigned.status, _code(unsigned)) == (403, "AccessDenied")


async def test_head_has_no_body(driver: Driver) -> None:
    await driver.request("PUT", "/bucket/k", body=b"abc")
    found = await driver.request("HEAD", "/bucket/k")
    assert (found.status, found.body, found.headers["content-length"]) == (200, b"", "3")
    missing = await driver.request("HEAD", "/bucket/none")
    assert (missing.status, missing.body) == (404, b"")
    await driver.request("PUT", "/bucket/k", headers={"x-amz-checksum-sha256": _ABC_SHA256}, body=b"abc")
    headers = {"if-none-match": found.headers["etag"], "x-amz-checksum-mode": "ENABLED"}
    unchanged = await driver.request("GET", "/bucket/k", headers=headers)
    assert not [name for name in unchanged.headers if name.startswith("x-amz-checksum")]
    assert (unchanged.status, unchanged.body, unchanged.headers["etag"]) == (304, b"", found.headers["etag"])


async def test_health(driver: Driver) -> None:
    async def health(name: str) -> int:
        return (await driver.send("GET", f"/health/{name}", (), {}, ())).status

    assert [await health("live"), await health("ready"), await health("else")] == [200, 200, 404]
    driver.not_ready = NotEnoughFragments("two drives are missing")
    assert [await health("live"), await health("ready")] == [200, 503]
    stopped = Driver()
    answer = await stopped.send("GET", "/health/ready", (), {}, ())
    assert (answer.status, _code(answer)) == (503, "ServiceUnavailable")


# Each header and sub-resource of S3 that means something this gateway does not do.
_HEADERS = {
    "x-amz-acl": "public-read",
    "x-amz-api-version": "2036-03-01",
    "x-amz-grant-full-control": "id=x",
    "x-amz-grant-read": "id=x",
    "x-amz-mfa": "x",
    "x-amz-object-lock-legal-hold": "ON",
    "x-amz-object-lock-mode": "GOVERNANCE",
    "x-amz-object-lock-retain-until-date": "2030-01-01T00:00:00Z",
    "x-amz-rename-source": "/bucket/k",
    "x-amz-server-side-encryption": "AES256",
    "x-amz-server-side-encryption-aws-kms-key-id": "x",
    "x-amz-server-side-encryption-bucket-key-enabled": "true",
    "x-amz-server-side-encryption-context": "x",
    "x-amz-server-side-encryption-customer-algorithm": "AES256",
    "x-amz-server-side-encryption-customer-key": "x",
    "x-amz-storage-class": "GLACIER",
    "x-amz-website-redirect-location": "/",
    "x-amz-write-offset-bytes": "3",
    "x-amz-something-of-tomorrow": "x",
    "if-modified-since": "Thu, 01 Jan 1970 00:00:10 GMT",
    "if-unmodified-since": "Thu, 01 Jan 1970 00:00:10 GMT",
    "content-range": "bytes 0-1/2",
}
_BUCKET_RESOURCES = (
    "accelerate", "acl", "analytics", "cors", "encryption", "intelligent-tiering", "inventory", "lifecycle", "logging",
    "metadataConfiguration", "metadataTable", "metrics", "notification", "object-lock", "ownershipControls", "policy",
    "policyStatus", "publicAccessBlock", "replication", "requestPayment", "session", "website", "tomorrow",
)  # fmt: skip
_OBJECT_RESOURCES = (
    "acl", "annotation", "encryption", "legal-hold", "renameObject", "restore", "retention", "select", "tomorrow",
)  # fmt: skip


@pytest.mark.parametrize("name", list(_HEADERS))
async def test_a_header_that_is_not_carried_out_is_refused(driver: Driver, name: str) -> None:
    for method, path, query in (
        ("PUT", "/bucket/k", []),
        ("PUT", "/other", []),
        ("POST", "/bucket/k", [("uploads", "")]),
        ("DELETE", "/bucket/k", []),
    ):
        answer = await driver.request(method, path, query, {name: _HEADERS[name]})
        assert (answer.status, _code(answer)) == (501, "NotImplemented"), (method, path)
    hoisted = await driver.request("PUT", "/bucket/k", [(name, _HEADERS[name])])
    assert hoisted.status == 501
    assert [bucket.name for bucket in await driver.store.list_buckets()] == ["bucket"]
    assert not await driver.keys()


@pytest.mark.parametrize("method", ["GET", "PUT", "POST", "DELETE", "HEAD"])
async def test_a_sub_resource_that_is_not_there_is_refused(driver: Driver, method: str) -> None:
    await driver.request("PUT", "/bucket/k", body=b"abc")
    for path, names in (("/bucket", _BUCKET_RESOURCES), ("/bucket/k", _OBJECT_RESOURCES)):
        for name in names:
            answer = await driver.request(method, path, [(name, "")])
            assert answer.status == 501, (method, path, name)
    assert await driver.keys() == ["k"]


async def test_a_lock_that_is_not_there_may_be_overridden(driver: Driver) -> None:
    headers = {"x-amz-bypass-governance-retention": "true"}
    assert (await driver.request("DELETE", "/bucket/k", headers=headers)).status == 204
    assert (await driver.request("PUT", "/bucket/k", headers=headers)).status == 501


async def test_the_version_of_the_api_may_be_named(driver: Driver) -> None:
    """The AWS SDK for C++ does, and with it pyarrow."""
    headers = {"x-amz-api-version": "2006-03-01"}
    assert (await driver.request("HEAD", "/bucket", headers=headers)).status == 200
    assert (await driver.request("PUT", "/bucket/k", headers=headers, body=b"x")).status == 200


async def test_other_methods_are_not_allowed(driver: Driver) -> None:
    for method, path in (("PATCH", "/bucket/k"), ("PUT", "/"), ("DELETE", "/"), ("POST", "/")):
        assert (await driver.request(method, path)).status == 405


async def test_the_expected_owner_is_checked(driver: Driver) -> None:
    name = "x-amz-expected-bucket-owner"
    assert (await driver.request("GET", "/bucket", headers={name: Settings().owner_id})).status == 200
    assert (await driver.request("GET", "/bucket", headers={name: "1234"})).status == 403


async def test_names_and_keys(driver: Driver) -> None:
    assert _code(await driver.request("PUT", "/Bucket")) == "InvalidBucketName"
    assert _code(await driver.request("PUT", "/health")) == "InvalidBucketName"
    assert _code(await driver.request("GET", "/No_Such/k")) == "NoSuchBucket"
    assert (await driver.request("PUT", "/bucket/" + "ü" * 512)).status == 200
    assert _code(await driver.request("PUT", "/bucket/" + "ü" * 512 + "k")) == "KeyTooLongError"
    signed = driver.sign("GET", "/bucket/%FF", (), {}, sha256(b"").hexdigest())
    assert _code(await driver.send("GET", "/bucket/%FF", (), signed, ())) == "InvalidURI"


def _put_head(driver: Driver, length: int, payload: str = UNSIGNED_PAYLOAD, **headers: str) -> dict[str, str]:
    return driver.sign("PUT", "/bucket/k", (), {"content-length": str(length), **headers}, payload)


def _pieces(data: bytes, size: int, more: bool = True) -> list[dict[str, Any]]:
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    return [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces] + (
        [] if more else [{"type": "http.request", "body": b"", "more_body": False}]
    )


@pytest.mark.parametrize("length", [1000, 100_000])
async def test_a_client_that_leaves_stores_nothing(driver: Driver, length: int) -> None:
    messages = [*_pieces(b"x" * (length - 1), 400), {"type": "http.disconnect"}]
    answer = await driver.send("PUT", "/bucket/k", (), _put_head(driver, length), messages)
    assert answer.status == 0
    assert not await driver.keys()
    assert json.loads(driver.lines[-1])["status"] == 499


@pytest.mark.parametrize("length", [1000, 100_000])
async def test_a_short_body_is_incomplete(driver: Driver, length: int) -> None:
    messages = _pieces(b"x" * (length - 1), 400, more=False)
    answer = await driver.send("PUT", "/bucket/k", (), _put_head(driver, length), messages)
    assert _code(answer) == "IncompleteBody"
    messages = _pieces(b"x" * (length + 1), 400, more=False)
    answer = await driver.send("PUT", "/bucket/k", (), _put_head(driver, length), messages)
    assert (answer.status == 200) == (length % 400 == 0)
    assert set(await driver.keys()) <= {"k"}


async def test_a_sender_that_falls_silent_is_given_up(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "SILENCE_MAX_SECONDS", 0.05)
    for length in (1000, 100_000):
        answer = await driver.send("PUT", "/bucket/k", (), _put_head(driver, length), _pieces(b"x" * 500, 100))
        assert _code(answer) == "RequestTimeout"
    assert not await driver.keys()


async def test_bodies_without_a_length(driver: Driver) -> None:
    signed = driver.sign("PUT", "/bucket/k", (), {}, UNSIGNED_PAYLOAD)
    answer = await driver.send("PUT", "/bucket/k", (), signed, _pieces(b"", 3, more=False))
    assert (answer.status, _code(answer)) == (411, "MissingContentLength")
    signed = driver.sign("PUT", "/bucket/k", (), {"transfer-encoding": "chunked"}, sha256(b"abcd").hexdigest())
    assert (await driver.send("PUT", "/bucket/k", (), signed, _pieces(b"abcd", 3, more=False))).status == 200
    assert (await driver.request("GET", "/bucket/k")).body == b"abcd"
    for wrong in ([*_pieces(b"abc", 3), {"type": "http.disconnect"}], _pieces(b"abc", 3, more=False)):
        assert (await driver.send("PUT", "/bucket/k", (), signed, wrong)).status in (0, 400)
    assert (await driver.request("GET", "/bucket/k")).body == b"abcd"
    answer = await driver.send("PUT", "/bucket/k", (), _put_head(driver, 6 * 1024 * MIB), ())
    assert _code(answer) == "EntityTooLarge"


@pytest.mark.parametrize("length", [1000, 300_000])
async def test_the_signed_hash_is_checked(driver: Driver, length: int) -> None:
    data = b"x" * length
    head = _put_head(driver, length, sha256(data).hexdigest())
    wrong = await driver.send("PUT", "/bucket/k", (), head, _pieces(b"y" + data[1:], 64 * 1024))
    assert _code(wrong) == "XAmzContentSHA256Mismatch"
    assert not await driver.keys()
    assert (await driver.send("PUT", "/bucket/k", (), head, _pieces(data, 64 * 1024))).status == 200


async def test_announced_hashes_are_checked(driver: Driver) -> None:
    for headers, code in (
        ({"content-md5": "AAAAAAAAAAAAAAAAAAAAAA=="}, "BadDigest"),
        ({"content-md5": "AAAA"}, "InvalidDigest"),
        ({"content-md5": "?"}, "InvalidDigest"),
        ({"x-amz-checksum-crc32": "AAAAAA=="}, "BadDigest"),
        ({"x-amz-checksum-crc32": "AAAA"}, "BadDigest"),
        ({"x-amz-checksum-crc32": "AAAAAA==", "x-amz-checksum-sha1": "x"}, "InvalidRequest"),
        ({"x-amz-sdk-checksum-algorithm": "CRC32"}, "InvalidRequest"),
        ({"x-amz-checksum-md4": "x"}, "NotImplemented"),
        ({"x-amz-trailer": "x-amz-checksum-crc32"}, "InvalidRequest"),
    ):
        answer = await driver.request("PUT", "/bucket/k", headers=headers, body=b"abc")
        assert _code(answer) == code, headers
        answer = await driver.request("POST", "/bucket", [("delete", "")], headers, b"<Delete/>")
        assert _code(answer) == code, headers
    assert not await driver.keys()


@pytest.mark.parametrize("length", [0, 1000, 64 * 1024, 1_000_000])
@pytest.mark.parametrize("cut", [1000, 70_000, 2_000_000])
async def test_signed_chunks(driver: Driver, length: int, cut: int) -> None:
    data = bytes(range(256)) * (length // 256) + b"." * (length % 256)
    wire = str(chunked_length(length))
    head = SIGNER.sign(
        "PUT",
        "/bucket/k",
        (),
        {"host": "localhost", "content-length": wire, "x-amz-decoded-content-length": str(length)},
        CHUNKED,
        driver.date(),
    )
    body_ = b"".join(
        b"".join((head_, bytes(piece), tail))
        for head_, piece, tail in SIGNER.chunks(data, signature(head), driver.date())
    )
    assert head["x-amz-content-sha256"] == STREAMING_SIGNED
    answer = await driver.send("PUT", "/bucket/k", (), head, _pieces(body_, cut))
    assert answer.status == 200
    assert (await driver.request("GET", "/bucket/k")).body == data
    if length:
        changed = body_.replace(b"\r\n", b"\r\n!", 1).replace(b"!" + data[:1], b"!", 1)
        answer = await driver.send("PUT", "/bucket/other", (), head, _pieces(changed, cut))
        assert answer.status == 403
        answer = await driver.send("PUT", "/bucket/k", (), head, _pieces(changed, cut))
        assert _code(answer) == "SignatureDoesNotMatch"
        assert (await driver.request("GET", "/bucket/k")).body == data


async def test_a_refused_upload_is_taken_in_so_that_the_answer_arrives(driver: Driver) -> None:
    for length, expect, taken in (
        (200_000, {}, 200_000),
        (body.DRAIN_MAX_BYTES + 1, {}, 0),
        (200_000, {"expect": "100-continue"}, 0),
    ):
        head = {**_put_head(driver, length), "authorization": "AWS4-HMAC-SHA256 nonsense", **expect}
        assert (await driver.send("PUT", "/bucket/k", (), head, _pieces(b"x" * 200_000, 1000))).status == 400
        assert json.loads(driver.lines[-1]).get("received_bytes", 0) == taken
    head = {"host": "localhost", "transfer-encoding": "chunked", "authorization": "AWS4-HMAC-SHA256 nonsense"}
    assert (await driver.send("PUT", "/bucket/k", (), head, _pieces(b"x" * 200_000, 1000, more=False))).status == 400
    assert json.loads(driver.lines[-1])["received_bytes"] == 200_000


async def test_a_read_that_breaks_never_looks_whole(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    await driver.request("PUT", "/bucket/k", body=b"x" * 200_000)
    closed = False

    async def read(self: ObjectReader, range: ByteRange | None = None) -> AsyncGenerator[Buffer, None]:
        nonlocal closed
        try:
            yield b"x" * 100_000
            raise Corrupt("a leaf is wrong")
        finally:
            closed = True

    monkeypatch.setattr(ObjectReader, "read", read)
    with pytest.raises(Corrupt):
        await driver.request("GET", "/bucket/k")
    assert (json.loads(driver.lines[-1])["error"], json.loads(driver.lines[-1])["status"]) == ("corrupt", 500)
    assert closed


async def test_what_cannot_be_read_at_all_is_an_error(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    await driver.request("PUT", "/bucket/k", body=b"x" * 200_000)

    async def read(self: ObjectReader, range: ByteRange | None = None) -> AsyncGenerator[Buffer, None]:
        if self.info.size:
            raise NotEnoughFragments("two drives are missing")
        yield b""

    monkeypatch.setattr(ObjectReader, "read", read)
    answer = await driver.request("GET", "/bucket/k")
    assert (answer.status, _code(answer)) == (503, "ServiceUnavailable")


async def test_a_query_that_is_no_text_is_refused(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "verify", lambda *_: identity(UNSIGNED_PAYLOAD, ""))
    for name in ("prefix", "marker", "delimiter"):
        answer = await driver.send("GET", "/bucket", [(name, "\udcff")], {"host": "localhost"}, ())
        assert _code(answer) == "InvalidURI"
    assert _code(await driver.request("GET", "/bucket/k", [("versionId", "")])) == "InvalidArgument"


async def test_a_download_stops_when_the_client_leaves(driver: Driver) -> None:
    await driver.request("PUT", "/bucket/k", body=b"x" * (10 * MIB))
    head = driver.sign("GET", "/bucket/k", (), {}, sha256(b"").hexdigest())
    answer = await driver.send("GET", "/bucket/k", (), head, (), client_leaves_after=3)
    assert not answer.whole
    assert len(answer.body) < 6 * MIB
    assert json.loads(driver.lines[-1])["status"] == 499


async def test_a_client_that_takes_nothing_is_given_up(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "SEND_MAX_SECONDS", 0.05)
    await driver.request("PUT", "/bucket/k", body=b"x" * (4 * MIB))
    head = driver.sign("GET", "/bucket/k", (), {}, sha256(b"").hexdigest())
    answer = await driver.send("GET", "/bucket/k", (), head, (), client_stalls_after=2)
    assert not answer.whole
    assert json.loads(driver.lines[-1])["status"] == 499


async def test_a_multi_delete_tells_of_each_key(driver: Driver) -> None:
    await driver.request("PUT", "/bucket/k", body=b"x")
    names = "".join(f"<Object><Key>{key}</Key></Object>" for key in ("k", "none", "x" * 1025))
    answer = await driver.request("POST", "/bucket", [("delete", "")], body=f"<Delete>{names}</Delete>".encode())
    text = answer.body.decode()
    assert "<Deleted><Key>k</Key></Deleted><Deleted><Key>none</Key></Deleted><Error>" in text
    assert text.count("<Code>KeyTooLongError</Code>") == 1
    quiet = f"<Delete><Quiet>true</Quiet>{names}</Delete>".encode()
    answer = await driver.request("POST", "/bucket", [("delete", "")], body=quiet)
    assert b"<Deleted>" not in answer.body
    for document in (
        "<Delete/>",
        "<Delete>" + "<Object><Key>k</Key></Object>" * 1001 + "</Delete>",
        "<Delete><Object/></Delete>",
    ):
        answer = await driver.request("POST", "/bucket", [("delete", "")], body=document.encode())
        assert _code(answer) == "MalformedXML"
    unknown = b"<Delete><Object><Key>k</Key><Phase>full moon</Phase></Object></Delete>"
    assert (await driver.request("POST", "/bucket", [("delete", "")], body=unknown)).status == 501


async def test_errors_of_the_store(driver: Driver, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    error: Exception = Full("/data/3 is full")

    async def put_object(self: Store, *arguments: Any) -> Any:
        raise error

    monkeypatch.setattr(Store, "put_object", put_object)
    answer = await driver.request("PUT", "/bucket/k", body=b"x")
    assert (answer.status, _code(answer)) == (507, "InsufficientStorage")
    assert b"/data/3" not in answer.body
    error = HoldfastError("odd")
    assert (await driver.request("PUT", "/bucket/k", body=b"x")).status == 500
    error = KeyError("bug")
    with caplog.at_level(logging.CRITICAL):
        answer = await driver.request("PUT", "/bucket/k", body=b"x")
    assert (answer.status, _code(answer)) == (500, "InternalError")
    assert b"bug" not in answer.body


async def test_the_access_log_holds_no_secret(driver: Driver) -> None:
    query = [
        ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
        ("X-Amz-Credential", "AKID/20130524/us-east-1/s3/aws4_request"),
        ("X-Amz-Signature", "5ec4e7"),
        ("X-Amz-Security-Token", "70ken"),
        ("prefix", "kept"),
    ]
    headers = {"host": "localhost", "user-agent": "test"}
    assert (await driver.send("GET", "/bucket", query, headers, ())).status == 400
    line = driver.lines[-1]
    assert line.endswith(b"}\n")
    assert b"5ec4e7" not in line
    assert b"70ken" not in line
    assert b"prefix=kept" in line
    entry = json.loads(line)
    assert (entry["method"], entry["path"], entry["status"]) == ("GET", "/bucket", 400)
    assert entry["time"] == "2023-11-14T22:13:20.000Z"
    answer = await driver.request("PUT", "/bucket/k", body=b"abc")
    entry = json.loads(driver.lines[-1])
    assert entry["request_id"] == answer.headers["x-amz-request-id"]
    assert (entry["verb"], entry["received_bytes"]) == ("PutObject", 3)
    assert "authorization" not in driver.lines[-1].decode().lower()


async def test_a_lifespan_that_fails_is_told(caplog: Any) -> None:
    driver = Driver()
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        sent.append(message)

    def refuse() -> Any:
        raise NotEnoughFragments("drive 3 is missing")

    driver.app._open_services = refuse  # type: ignore[attr-defined]
    with caplog.at_level(logging.CRITICAL):
        await driver.app({"type": "lifespan"}, receive, send)
    assert sent == [{"type": "lifespan.startup.failed", "message": "drive 3 is missing"}]


def test_verbs_have_names_of_their_own() -> None:
    assert len({verb.name for verb in VERBS}) == len(VERBS)
    assert set(checksums.HEADERS) == {
        "x-amz-checksum-crc32", "x-amz-checksum-crc32c", "x-amz-checksum-crc64nvme", "x-amz-checksum-sha1",
        "x-amz-checksum-sha256",
    }  # fmt: skip


async def _upload(driver: Driver, headers: dict[str, str]) -> tuple[str, bytes]:
    """An upload of one part; its id, and the document that completes it."""
    started = await driver.request("POST", "/bucket/big", [("uploads", "")], headers)
    upload = started.body.decode().partition("<UploadId>")[2].partition("<")[0]
    part = await driver.request(
        "PUT",
        "/bucket/big",
        [("partNumber", "1"), ("uploadId", upload)],
        {"x-amz-checksum-sha256": _ABC_SHA256},
        b"abc",
    )
    etag = part.headers["etag"]
    inner = f"<Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part>"
    return upload, f"<CompleteMultipartUpload>{inner}</CompleteMultipartUpload>".encode()


async def test_the_checksum_of_a_completed_upload_is_checked(driver: Driver) -> None:
    upload, document = await _upload(driver, {"x-amz-checksum-algorithm": "SHA256"})
    query = [("uploadId", upload)]
    for headers, code in (
        ({"x-amz-checksum-sha256": "bad"}, "BadDigest"),
        ({"x-amz-checksum-sha256": _ABC_SHA256}, "BadDigest"),
        ({"x-amz-checksum-crc32": "AAAAAA=="}, "InvalidRequest"),
        ({"x-amz-checksum-type": "FULL_OBJECT"}, "InvalidRequest"),
        ({"x-amz-mp-object-size": "4"}, "InvalidRequest"),
    ):
        answer = await driver.request("POST", "/bucket/big", query, headers, document)
        assert _code(answer) == code, headers
    assert not await driver.keys()
    done = await driver.request("POST", "/bucket/big", query, {"x-amz-mp-object-size": "3"}, document)
    assert b"<ChecksumType>COMPOSITE</ChecksumType>" in done.body
    again = await driver.request("POST", "/bucket/big", query, {}, document)
    assert (again.status, b"-1&quot;</ETag>" in again.body) == (200, True)
    assert _code(await driver.request("GET", "/bucket/big", [("partNumber", "2")])) == "InvalidPart"
    refused = await driver.request(
        "POST",
        "/bucket/big",
        [("uploads", "")],
        {"x-amz-checksum-algorithm": "SHA1", "x-amz-checksum-type": "FULL_OBJECT"},
    )
    assert _code(refused) == "InvalidRequest"


@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        ("plain", "plain"),
        ("=?UTF-8?Q?=C3=A4?=", "=?UTF-8?Q?=C3=A4?="),
        ("ÄMÄZÕÑ S3".encode().decode("latin-1"), "=?UTF-8?B?w4RNw4Raw5XDkSBTMw==?="),
        ("\xe9t\xe9", "=?UTF-8?B?w6l0w6k=?="),
    ],
)
async def test_metadata_beyond_ascii_is_answered_in_encoded_words(driver: Driver, sent: str, answered: str) -> None:
    await driver.store.put_object("bucket", "k", b"x", PutOptions(user_metadata={"a": sent}))
    for method in ("GET", "HEAD"):
        assert (await driver.request(method, "/bucket/k")).headers["x-amz-meta-a"] == answered
