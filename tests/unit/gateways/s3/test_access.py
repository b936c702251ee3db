"""What a key without the right to it is answered, for every verb and every way to name a bucket."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from holdfast.gateways.s3.routing import VERBS
from holdfast.gateways.s3.sigv4 import canonical_query, signing_key, string_to_sign
from holdfast.objects.access import EITHER, READ, WRITE, Access, Permissions
from tests.unit.gateways.s3.asgi import Answer, Driver
from tests.unit.gateways.s3.signing import ACCESS_KEY, REGION, SECRET_KEY

_DELETE = b"<Delete><Object><Key>k</Key></Object></Delete>"
_TAGS = b"<Tagging><TagSet><Tag><Key>a</Key><Value>1</Value></Tag></TagSet></Tagging>"
_VERSIONING = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
_COMPLETE = b"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>x</ETag></Part></CompleteMultipartUpload>"
_UPLOAD = "00" * 16


@dataclass(frozen=True)
class Request:
    """A request that is allowed to whoever has one of `needs` in the bucket; None is root alone."""

    method: str
    path: str
    needs: Permissions | None
    query: list[tuple[str, str]] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


REQUESTS = {
    "CreateBucket": Request("PUT", "/bucket", None),
    "DeleteBucket": Request("DELETE", "/bucket", None),
    "PutBucketVersioning": Request("PUT", "/bucket", None, [("versioning", "")], body=_VERSIONING),
    "PutBucketTagging": Request("PUT", "/bucket", None, [("tagging", "")], body=_TAGS),
    "DeleteBucketTagging": Request("DELETE", "/bucket", None, [("tagging", "")]),
    "HeadBucket": Request("HEAD", "/bucket", EITHER),
    "GetBucketLocation": Request("GET", "/bucket", EITHER, [("location", "")]),
    "GetBucketVersioning": Request("GET", "/bucket", EITHER, [("versioning", "")]),
    "GetBucketTagging": Request("GET", "/bucket", READ, [("tagging", "")]),
    "ListObjects": Request("GET", "/bucket", READ),
    "ListObjectsV2": Request("GET", "/bucket", READ, [("list-type", "2")]),
    "ListObjectVersions": Request("GET", "/bucket", READ, [("versions", "")]),
    "GetObject": Request("GET", "/bucket/k", READ),
    "HeadObject": Request("HEAD", "/bucket/k", READ),
    "GetObjectAttributes": Request("GET", "/bucket/k", READ, [("attributes", "")], {"x-amz-object-attributes": "ETag"}),
    "GetObjectTorrent": Request("GET", "/bucket/k", READ, [("torrent", "")]),
    "GetObjectTagging": Request("GET", "/bucket/k", READ, [("tagging", "")]),
    "PutObject": Request("PUT", "/bucket/k", WRITE, body=b"new"),
    "DeleteObject": Request("DELETE", "/bucket/k", WRITE),
    "DeleteObjects": Request("POST", "/bucket", WRITE, [("delete", "")], body=_DELETE),
    "PutObjectTagging": Request("PUT", "/bucket/k", WRITE, [("tagging", "")], body=_TAGS),
    "DeleteObjectTagging": Request("DELETE", "/bucket/k", WRITE, [("tagging", "")]),
    "ListMultipartUploads": Request("GET", "/bucket", WRITE, [("uploads", "")]),
    "CreateMultipartUpload": Request("POST", "/bucket/k", WRITE, [("uploads", "")]),
    "UploadPart": Request("PUT", "/bucket/k", WRITE, [("partNumber", "1"), ("uploadId", _UPLOAD)], body=b"new"),
    "ListParts": Request("GET", "/bucket/k", WRITE, [("uploadId", _UPLOAD)]),
    "CompleteMultipartUpload": Request("POST", "/bucket/k", WRITE, [("uploadId", _UPLOAD)], body=_COMPLETE),
    "AbortMultipartUpload": Request("DELETE", "/bucket/k", WRITE, [("uploadId", _UPLOAD)]),
    "CopyObject": Request("PUT", "/bucket/k", WRITE, headers={"x-amz-copy-source": "/source/k"}),
    "UploadPartCopy": Request(
        "PUT", "/bucket/k", WRITE, [("partNumber", "1"), ("uploadId", _UPLOAD)], {"x-amz-copy-source": "/source/k"}
    ),
}


@pytest.fixture
async def driver() -> AsyncIterator[Driver]:
    async with Driver().running() as running:
        await running.request("PUT", "/bucket/k", body=b"old")
        await running.request("PUT", "/source")
        await running.request("PUT", "/source/k", body=b"source")
        yield running


async def _send(driver: Driver, request: Request) -> Answer:
    return await driver.request(request.method, request.path, request.query, request.headers, request.body)


def _denied(answer: Answer) -> bool:
    if answer.status != 403:
        return False
    assert answer.body == b"" or b"<Code>AccessDenied</Code><Message>Access Denied</Message>" in answer.body
    return True


def test_every_verb_has_its_line() -> None:
    assert {verb.name for verb in VERBS} == {*REQUESTS, "ListBuckets", "PostObject"}


@pytest.mark.parametrize("name", REQUESTS)
async def test_a_verb_wants_its_grant(driver: Driver, name: str) -> None:
    request = REQUESTS[name]
    given: list[dict[str, Permissions]] = [{}, {"source": EITHER}, {"*": READ}, {"bucket": WRITE, "source": READ}]
    for granted in given:
        driver.credentials.granted = Access(grants=granted)
        here = granted.get("bucket", frozenset()) | granted.get("*", frozenset())
        allowed = request.needs is not None and bool(request.needs & here)
        assert _denied(await _send(driver, request)) != allowed, granted
    driver.credentials.granted = Access(root=True)
    assert not _denied(await _send(driver, request))


@pytest.mark.parametrize("name", [name for name, request in REQUESTS.items() if request.needs != READ])
async def test_what_was_denied_changed_nothing(driver: Driver, name: str) -> None:
    driver.credentials.granted = Access(grants={"bucket": READ, "source": EITHER})
    await _send(driver, REQUESTS[name])
    driver.credentials.granted = Access(root=True)
    answer = await driver.request("GET", "/bucket/k")
    assert (answer.body, "x-amz-tagging-count" in answer.headers) == (b"old", False)
    assert b"<Upload>" not in (await driver.request("GET", "/bucket", [("uploads", "")])).body
    assert b"Enabled" not in (await driver.request("GET", "/bucket", [("versioning", "")])).body


@pytest.mark.parametrize("name", ["CopyObject", "UploadPartCopy"])
async def test_a_copy_reads_its_source(driver: Driver, name: str) -> None:
    driver.credentials.granted = Access(grants={"bucket": EITHER, "source": WRITE})
    assert _denied(await _send(driver, REQUESTS[name]))
    driver.credentials.granted = Access(grants={"bucket": WRITE, "source": READ})
    assert (await _send(driver, REQUESTS[name])).status == (200 if name == "CopyObject" else 404)


async def test_what_is_not_there_is_not_told(driver: Driver) -> None:
    driver.credentials.granted = Access(grants={"bucket": EITHER})
    there = await driver.request("GET", "/source/k")
    missing = await driver.request("GET", "/nowhere/k")
    assert _denied(there)
    assert _denied(missing)
    driver.credentials.granted = Access(grants={"*": READ})
    assert (await driver.request("GET", "/nowhere/k")).status == 404


async def test_list_buckets_shows_what_was_granted(driver: Driver) -> None:
    async def listed() -> str:
        body = (await driver.request("GET", "/", [("max-buckets", "1")])).body.decode()
        return body.partition("<Name>")[2].partition("</Name>")[0] + "+" * ("ContinuationToken" in body)

    assert await listed() == "bucket+"
    driver.credentials.granted = Access()
    assert await listed() == ""
    for name in ("source", "bucket"):
        driver.credentials.granted = Access(grants={name: WRITE})
        assert await listed() == name
    driver.credentials.granted = Access(grants={"*": READ})
    assert await listed() == "bucket+"


async def test_conditions_that_tell_of_an_object_take_reading(driver: Driver) -> None:
    driver.credentials.granted = Access(grants={"bucket": WRITE})
    for header in ({"if-match": "*"}, {"if-match": '"x"'}, {"if-none-match": '"x"'}):
        assert _denied(await driver.request("PUT", "/bucket/k", headers=header, body=b"x"))
    assert _denied(await driver.request("DELETE", "/bucket/k", headers={"if-match": '"x"'}))
    assert (await driver.request("PUT", "/bucket/k", headers={"if-none-match": "*"}, body=b"x")).status == 412
    driver.credentials.granted = Access(grants={"bucket": EITHER})
    assert (await driver.request("PUT", "/bucket/k", headers={"if-match": '"x"'}, body=b"x")).status == 412


async def test_presigned(driver: Driver) -> None:
    date = driver.date()
    query = [
        ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
        ("X-Amz-Credential", f"{ACCESS_KEY}/{date[:8]}/{REGION}/s3/aws4_request"),
        ("X-Amz-Date", date),
        ("X-Amz-Expires", "60"),
        ("X-Amz-SignedHeaders", "host"),
    ]
    canonical = f"GET\n/bucket/k\n{canonical_query(query)}\nhost:localhost\n\nhost\nUNSIGNED-PAYLOAD"
    text = string_to_sign(date, f"{date[:8]}/{REGION}/s3/aws4_request", canonical.encode())
    signed = [*query, ("X-Amz-Signature", signing_key(SECRET_KEY, date[:8], REGION).sign(text))]
    for granted, status in ((READ, 200), (WRITE, 403)):
        driver.credentials.granted = Access(grants={"bucket": granted})
        assert (await driver.send("GET", "/bucket/k", signed, {"host": "localhost"}, ())).status == status
