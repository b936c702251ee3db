"""Presigned URLs and forms of version 2: as botocore makes them, and nothing beyond what they were signed for."""

import base64
import json
from collections.abc import AsyncIterator
from urllib.parse import parse_qsl, quote, urlsplit

import pytest
from botocore.auth import HmacV1QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from holdfast.gateways.s3 import Settings
from holdfast.gateways.s3.sigv2 import sign
from holdfast.objects.access import READ, Access
from tests.unit.gateways.s3.asgi import Answer, Driver
from tests.unit.gateways.s3.signing import ACCESS_KEY, SECRET_KEY

DAY = 24 * 3600


@pytest.fixture
async def driver(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Driver]:
    async with Driver(Settings(domains=("s3.test",))).running() as running:
        monkeypatch.setattr("botocore.auth.time.time", lambda: running.clock.now_ns() / 1e9)
        await running.request("PUT", "/bucket/a b", body=b"abc")
        yield running


def presigned(method: str, path: str, *, expires: int = 60, headers: dict[str, str] | None = None) -> str:
    """Path and query of a URL as botocore presigns it. `path` may have a query of its own."""
    request = AWSRequest(method, f"http://localhost{path}", headers=headers or {})
    request.context["signing"] = {}
    HmacV1QueryAuth(Credentials(ACCESS_KEY, SECRET_KEY), expires=expires).add_auth(request)
    parts = urlsplit(request.url)
    return f"{parts.path}?{parts.query}"


async def send(driver: Driver, method: str, url: str, body: bytes = b"", **headers: str) -> Answer:
    path, _, query = url.partition("?")
    head = {"host": "localhost", "content-length": str(len(body)), **headers}
    message = {"type": "http.request", "body": body}
    return await driver.send(method, path, parse_qsl(query, keep_blank_values=True), head, [message])


def code(answer: Answer) -> str:
    return answer.body.decode().partition("<Code>")[2].partition("</Code>")[0]


async def test_urls_as_botocore_makes_them(driver: Driver) -> None:
    answer = await send(driver, "GET", presigned("GET", "/bucket/a%20b?response-content-type=text%2Fx"))
    assert (answer.status, answer.body, answer.headers["content-type"]) == (200, b"abc", "text/x")
    headers = {"content-type": "text/y", "x-amz-meta-a": "1"}
    url = presigned("PUT", "/bucket/new", headers=headers)
    assert (await send(driver, "PUT", url, b"xyz")).status == 200
    found = await driver.request("GET", "/bucket/new")
    assert (found.body, found.headers["content-type"], found.headers["x-amz-meta-a"]) == (b"xyz", "text/y", "1")
    assert (await send(driver, "DELETE", presigned("DELETE", "/bucket/new"))).status == 204
    assert await driver.keys() == ["a b"]


async def test_the_bucket_of_the_host_is_signed(driver: Driver) -> None:
    query = presigned("GET", "/bucket/a%20b").partition("?")[2]
    assert (await send(driver, "GET", f"/a%20b?{query}", host="bucket.s3.test")).body == b"abc"
    await driver.request("PUT", "/second")
    await driver.request("PUT", "/second/a b", body=b"other")
    assert code(await send(driver, "GET", f"/a%20b?{query}", host="second.s3.test")) == "SignatureDoesNotMatch"


@pytest.mark.parametrize(
    ("method", "change", "expected"),
    [
        ("PUT", "", "SignatureDoesNotMatch"),
        ("GET", "&versionId=null", "SignatureDoesNotMatch"),
        ("GET", "&response-content-type=text/html", "SignatureDoesNotMatch"),
        ("GET", "&x-amz-meta-a=1", "SignatureDoesNotMatch"),
        ("GET", "&prefix=secret", "AuthorizationQueryParametersError"),
        ("GET", "&x-whatever=1", "AuthorizationQueryParametersError"),
        ("GET", "&Expires=9999999999", "AccessDenied"),
        ("GET", "&x-amz-security-token=t", "InvalidToken"),
    ],
)
async def test_nobody_makes_another_url_of_it(driver: Driver, method: str, change: str, expected: str) -> None:
    assert code(await send(driver, method, presigned("GET", "/bucket/a%20b") + change)) == expected


async def test_headers_that_were_not_signed_are_refused(driver: Driver) -> None:
    url = presigned("PUT", "/bucket/a%20b")
    for name in ("content-type", "content-md5", "x-amz-meta-a", "x-amz-copy-source"):
        assert code(await send(driver, "PUT", url, b"x", **{name: "/bucket/k"})) == "SignatureDoesNotMatch", name
    signed = presigned("PUT", "/bucket/a%20b", headers={"x-amz-meta-a": "1"})
    twice = await send(driver, "PUT", signed, b"x", **{"x-amz-meta-a": "2"})
    assert code(twice) == "AuthorizationQueryParametersError"
    framed = {"x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER"}
    assert (await send(driver, "PUT", presigned("PUT", "/bucket/k", headers=framed), b"0\r\n\r\n")).status != 200
    assert (await driver.request("GET", "/bucket/a b")).body == b"abc"


async def test_time(driver: Driver) -> None:
    url = presigned("GET", "/bucket/a%20b", expires=60)
    await driver.clock.advance(59)
    assert (await send(driver, "GET", url)).status == 200
    await driver.clock.advance(2)
    assert code(await send(driver, "GET", url)) == "AccessDenied"
    assert (await send(driver, "GET", presigned("GET", "/bucket/a%20b", expires=7 * DAY))).status == 200
    for expires in (7 * DAY + 901, 10**12):
        long = presigned("GET", "/bucket/a%20b", expires=expires)
        assert code(await send(driver, "GET", long)) == "AuthorizationQueryParametersError"


async def test_who_signed_and_what_it_may(driver: Driver) -> None:
    url = presigned("GET", "/bucket/a%20b")
    for wrong, expected in (
        (url.replace(ACCESS_KEY, "NOBODY"), "InvalidAccessKeyId"),
        (url.replace("Signature=", "Signature=A"), "SignatureDoesNotMatch"),
        (url.partition("&Signature")[0], "AccessDenied"),
    ):
        assert code(await send(driver, "GET", wrong)) == expected
    driver.credentials.granted = Access(grants={"other": READ})
    assert (await send(driver, "GET", url)).status == 403


async def test_an_authorization_header_of_version_2_is_refused(driver: Driver) -> None:
    answer = await send(driver, "GET", "/bucket/a%20b", authorization=f"AWS {ACCESS_KEY}:c2lnbmF0dXJl")
    assert code(answer) == "InvalidRequest"


async def test_forms(driver: Driver) -> None:
    async def post(**changed: str) -> str:
        document = {"expiration": "2100-01-01T00:00:00Z", "conditions": [{"bucket": "bucket"}, {"key": "form"}]}
        policy = base64.b64encode(json.dumps(document).encode()).decode()
        fields = {"key": "form", "AWSAccessKeyId": ACCESS_KEY, "policy": policy}
        fields["signature"] = sign(SECRET_KEY, policy.encode())
        fields.update(changed)
        parts = [f'--B\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{fields[name]}\r\n' for name in fields]
        file = '--B\r\nContent-Disposition: form-data; name="file"\r\n\r\nhello\r\n--B--\r\n'
        body = ("".join(parts) + file).encode()
        return code(await send(driver, "POST", "/bucket", body, **{"content-type": "multipart/form-data; boundary=B"}))

    assert await post(signature=quote("no")) == "SignatureDoesNotMatch"
    assert await post(AWSAccessKeyId="NOBODY") == "InvalidAccessKeyId"
    assert await post(**{"x-amz-meta-a": "1"}) == "AccessDenied"
    assert await post(**{"x-amz-algorithm": "AWS4-HMAC-SHA256"}) == "InvalidArgument"
    assert await driver.keys() == ["a b"]
    assert await post() == ""
    assert await driver.keys() == ["a b", "form"]
