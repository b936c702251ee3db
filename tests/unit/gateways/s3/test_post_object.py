"""Forms: their parser, their policies, and the uploads they make."""

import base64
import json
from collections.abc import AsyncIterator
from hashlib import md5, sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.ids import Buffer
from holdfast.gateways.s3.errors import S3Error
from holdfast.gateways.s3.form import FIELDS_MAX_BYTES, Form, boundary_of
from holdfast.gateways.s3.policy import parse_policy
from holdfast.gateways.s3.sigv4 import signing_key
from holdfast.objects.access import READ, WRITE, Access
from holdfast.objects.errors import IncompleteBody
from tests.unit.gateways.s3.asgi import Answer, Driver
from tests.unit.gateways.s3.signing import ACCESS_KEY, REGION, SECRET_KEY
from tests.unit.objects.world import run

_TYPE = {"host": "localhost", "content-type": "multipart/form-data; boundary=xYx"}


@pytest.fixture
async def driver() -> AsyncIterator[Driver]:
    async with Driver().running() as running:
        yield running


def _code(answer: Answer) -> str:
    return answer.body.decode().partition("<Code>")[2].partition("</Code>")[0]


def _encode(fields: list[tuple[str, str]], file: bytes | None, filename: str = "f.txt") -> bytes:
    parts = [
        b'--xYx\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (name.encode(), value.encode())
        for name, value in fields
    ]
    if file is not None:
        head = f'--xYx\r\nContent-Disposition: form-data; name="file"; filename="{filename}"\r\n\r\n'
        parts.append(head.encode() + file + b"\r\n")
    return b"".join((*parts, b"--xYx--\r\n"))


def _signed(driver: Driver, conditions: list[Any], fields: dict[str, str], **policy: Any) -> list[tuple[str, str]]:
    """The form's fields, with a policy of these conditions and of those on who signed."""
    date = driver.date()
    signer = {
        "x-amz-algorithm": "AWS4-HMAC-SHA256",
        "x-amz-credential": f"{ACCESS_KEY}/{date[:8]}/{REGION}/s3/aws4_request",
        "x-amz-date": date,
    }
    document = {"expiration": "2100-01-01T00:00:00.000Z", "conditions": [*conditions, signer], **policy}
    text = base64.b64encode(json.dumps(document).encode()).decode()
    signature = signing_key(SECRET_KEY, date[:8], REGION).sign(text.encode())
    return [*fields.items(), *signer.items(), ("policy", text), ("x-amz-signature", signature)]


async def _post(driver: Driver, body: bytes, path: str = "/bucket", **headers: str) -> Answer:
    head = {**_TYPE, "content-length": str(len(body)), **headers}
    messages = [
        {"type": "http.request", "body": body[start : start + 1000], "more_body": True}
        for start in range(0, len(body), 1000)
    ]
    return await driver.send("POST", path, (), head, messages)


_BUCKET: list[Any] = [{"bucket": "bucket"}, ["starts-with", "$key", "up/"]]


async def test_a_form_uploads_its_file(driver: Driver) -> None:
    for size in (0, 3, 5000, 300_000):
        body = bytes(range(256)) * (size // 256) + b"\r\n--xY" * 3
        given = {"key": "up/${filename}", "content-type": "text/x", "x-amz-meta-a": "ü", "acl": "private"}
        conditions = [*_BUCKET, {"acl": "private"}, ["starts-with", "$Content-Type", ""], {"x-amz-meta-a": "ü"}]
        form = _encode(_signed(driver, conditions, given), body, "C:\\dir\\ä b.txt")
        answer = await _post(driver, form)
        assert (answer.status, answer.body) == (204, b"")
        assert answer.headers["etag"] == f'"{md5(body).hexdigest()}"'
        assert answer.headers["location"] == "/bucket/up/%C3%A4%20b.txt"
        found = await driver.request("GET", "/bucket/up/ä b.txt")
        assert (found.body, found.headers["content-type"]) == (body, "text/x")
        assert found.headers["x-amz-meta-a"] == "=?UTF-8?B?w7w=?="
    line = json.loads(driver.lines[0])
    assert (line["verb"], line["access_key"]) == ("PostObject", ACCESS_KEY)


async def test_its_signer_must_be_allowed_to_write(driver: Driver) -> None:
    form = _encode(_signed(driver, _BUCKET, {"key": "up/k"}), b"abc")
    driver.credentials.granted = Access(grants={"bucket": READ, "other": WRITE})
    answer = await _post(driver, form)
    assert (answer.status, _code(answer)) == (403, "AccessDenied")
    assert await driver.keys() == []
    driver.credentials.granted = Access(grants={"bucket": WRITE})
    assert (await _post(driver, form)).status == 204


async def test_what_the_form_asks_to_be_answered(driver: Driver) -> None:
    fields = {"key": "up/k&", "tagging": "<Tagging><TagSet><Tag><Key>a</Key><Value>1</Value></Tag></TagSet></Tagging>"}
    conditions = [*_BUCKET, ["starts-with", "$tagging", ""]]
    for name, value, status in (
        ("success_action_status", "200", 200),
        ("success_action_status", "201", 201),
        ("success_action_status", "404", 204),
        ("success_action_redirect", "https://example.org/done?x=1", 303),
        ("success_action_redirect", "javascript:alert(1)", 204),
        ("success_action_redirect", "https://example.org/\r\nset-cookie: a", 204),
    ):
        given = _signed(driver, [*conditions, {name: value}], {**fields, name: value})
        answer = await _post(driver, _encode(given, b"abc"))
        assert answer.status == status, value
        if status == 201:
            assert b"<Key>up/k&amp;</Key>" in answer.body
        if status == 303:
            target = "https://example.org/done?x=1&bucket=bucket&key=up%2Fk%26&etag=%22"
            assert answer.headers["location"].startswith(target)
    assert (await driver.request("HEAD", "/bucket/up/k&")).headers["x-amz-tagging-count"] == "1"


async def test_every_condition_is_enforced(driver: Driver) -> None:
    good = {"key": "up/k"}
    for conditions, fields, policy in (
        ([{"bucket": "other"}, {"key": "up/k"}], good, {}),
        ([{"key": "up/k"}], good, {}),
        ([{"bucket": "bucket"}], good, {}),
        (_BUCKET, {"key": "down/k"}, {}),
        (_BUCKET, {**good, "bucket": "other"}, {}),
        ([{"bucket": "bucket"}, ["eq", "$key", "up/${filename}"]], {"key": "up/${filename}"}, {}),
        (_BUCKET, {**good, "content-type": "text/html"}, {}),
        (_BUCKET, {**good, "x-amz-meta-a": "1"}, {}),
        ([*_BUCKET, {"x-amz-meta-a": "1"}], good, {}),
        ([*_BUCKET, {"x-amz-meta-a": "1"}], {**good, "x-amz-meta-a": "2"}, {}),
        ([*_BUCKET, ["starts-with", "$x-amz-meta-a", "1"]], {**good, "x-amz-meta-a": "21"}, {}),
        (_BUCKET, good, {"expiration": "1970-01-01T00:00:00Z"}),
    ):
        answer = await _post(driver, _encode(_signed(driver, conditions, fields, **policy), b"abc"))
        assert (answer.status, _code(answer)) == (403, "AccessDenied"), (conditions, fields)
    assert not await driver.keys()
    for checksum, status in ((base64.b64encode(sha256(b"abc").digest()).decode(), 204), ("AAAA", 400)):
        summed = _signed(driver, _BUCKET, {**good, "x-amz-checksum-sha256": checksum})
        assert (await _post(driver, _encode(summed, b"abc"))).status == status
    ignored = _signed(driver, _BUCKET, {**good, "x-ignore-me": "1"})
    assert (await _post(driver, _encode(ignored, b"abc"))).status == 204


async def test_the_size_is_enforced(driver: Driver) -> None:
    for low, high, size, code in (
        (4, 9, 3, "EntityTooSmall"),
        (4, 9, 4, ""),
        ("4", "9", 9, ""),
        (4, 9, 10, "EntityTooLarge"),
        (0, 100_000, 200_000, "EntityTooLarge"),
    ):
        conditions = [*_BUCKET, ["content-length-range", low, high]]
        answer = await _post(driver, _encode(_signed(driver, conditions, {"key": f"up/{size}"}), b"x" * size))
        assert _code(answer) == code
    assert await driver.keys() == ["up/4", "up/9"]


async def test_the_signature_is_checked(driver: Driver) -> None:
    fields = _signed(driver, _BUCKET, {"key": "up/k"})

    def changed(name: str, value: str) -> list[tuple[str, str]]:
        return [(field, value if field == name else old) for field, old in fields]

    other = dict(_signed(driver, [*_BUCKET, {"a": "b"}], {}))["policy"]
    for form, code in (
        (changed("policy", other), "SignatureDoesNotMatch"),
        (changed("x-amz-signature", "0" * 64), "SignatureDoesNotMatch"),
        (changed("x-amz-signature", "ü"), "SignatureDoesNotMatch"),
        (changed("x-amz-algorithm", "AWS4-NONE"), "InvalidArgument"),
        (changed("x-amz-date", "20200101T000000Z"), "InvalidArgument"),
        (changed("x-amz-credential", f"x/{driver.date()[:8]}/{REGION}/s3/aws4_request"), "InvalidAccessKeyId"),
        (changed("x-amz-credential", f"{ACCESS_KEY}/{driver.date()[:8]}/mars-1/s3/aws4_request"), "InvalidArgument"),
        ([*fields, ("x-amz-security-token", "x")], "InvalidToken"),
        ([*fields, ("AWSAccessKeyId", "x")], "InvalidArgument"),
        ([field for field in fields if field[0] != "x-amz-signature"], "InvalidArgument"),
        ([field for field in fields if field[0] != "policy"], "AccessDenied"),
        ([*fields, ("KEY", "up/other")], "InvalidArgument"),
        ([("key", "up/k")], "AccessDenied"),
    ):
        assert _code(await _post(driver, _encode(form, b"abc"))) == code
    assert not await driver.keys()


async def test_what_a_form_cannot_have(driver: Driver) -> None:
    for name, value in (("x-amz-server-side-encryption", "AES256"), ("acl", "public-read"), ("x-amz-new", "1")):
        given = _signed(driver, [*_BUCKET, {name: value}], {"key": "up/k", name: value})
        assert _code(await _post(driver, _encode(given, b"abc"))) == "NotImplemented"
    fields = _signed(driver, _BUCKET, {"key": "up/k"})
    assert _code(await _post(driver, _encode(fields, None))) == "IncorrectNumberOfFilesInPostRequest"
    assert _code(await _post(driver, _encode(fields, b"abc"), **{"x-amz-acl": "public-read"})) == "NotImplemented"
    assert _code(await _post(driver, _encode(fields, b"abc"), "/Buc_ket")) == "NoSuchBucket"
    assert _code(await _post(driver, _encode(fields, b"abc"), "/bucket/k")) == "AccessDenied"
    digest = {"x-amz-checksum-crc32": "AAAAAA=="}
    summed = _signed(driver, [*_BUCKET, digest], {"key": "up/k", **digest})
    assert _code(await _post(driver, _encode(summed, b"abc"))) == "BadDigest"
    whole = _encode(fields, b"abc")
    for cut in (1, 100, len(whole) - 20):
        assert _code(await _post(driver, whole[:cut])) == "IncompleteBody"
    assert not await driver.keys()


@pytest.mark.parametrize(
    "document",
    [
        "", "[]", "{", '{"conditions": []}', '{"expiration": "soon", "conditions": []}',
        '{"expiration": "2100-01-01T00:00:00Z"}', '{"expiration": "2100-01-01T00:00:00Z", "conditions": [], "x": 1}',
        *(
            f'{{"expiration": "2100-01-01T00:00:00Z", "conditions": [{condition}]}}'
            for condition in (
                "1", "[]", "{}", '["eq", "key", "a"]', '["matches", "$key", "a"]', '["eq", "$key"]', '{"key": 1}',
                '["content-length-range", -1, 2]', '["content-length-range", 1, true]', '{"key": "a", "key": "b"}',
            )
        ),
    ],
)  # fmt: skip
def test_what_is_no_policy(document: str) -> None:
    with pytest.raises(S3Error) as error:
        parse_policy(base64.b64encode(document.encode()).decode())
    assert error.value.code == "InvalidPolicyDocument"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(st.text(max_size=10), inside, max_size=4),
    max_leaves=8,
)


@given(st.text(max_size=40) | st.lists(_JSON, max_size=4).map(
    lambda conditions: base64.b64encode(
        json.dumps({"expiration": "2100-01-01T00:00:00Z", "conditions": conditions}).encode()
    ).decode()
))  # fmt: skip
def test_any_policy_is_parsed_or_refused(text: str) -> None:
    try:
        policy = parse_policy(text)
    except S3Error:
        return
    with pytest.raises(S3Error):
        policy.check({"key": "\0 nobody named this", "bucket": "\0"}, 0)


async def _read(chunks: list[bytes], boundary: bytes = b"xYx") -> tuple[dict[str, str], str, bytes]:
    async def source() -> AsyncIterator[Buffer]:
        for chunk in chunks:
            yield chunk

    form = Form(source(), boundary)
    head = await form.head()
    return head.fields, head.filename, b"".join([piece async for piece in form.file()])


_VALUES = st.text(st.characters(exclude_categories=["Cs"]), max_size=10).filter(lambda text: "--xYx" not in text)


@given(
    st.dictionaries(st.sampled_from(["a", "b", "key"]), _VALUES),
    st.binary(max_size=40) | st.sampled_from([b"\r\n", b"\r\n--", b"\r\n--xY", b"--xYx\r\n\r"]),
    st.integers(1, 50),
)
def test_a_form_comes_back_however_it_is_cut(fields: dict[str, str], file: bytes, size: int) -> None:
    encoded = _encode(list(fields.items()), file)
    chunks = [encoded[start : start + size] for start in range(0, len(encoded), size)]
    assert run(_read(chunks)) == (fields, "f.txt", file)


_PIECES = [
    b"--xYx",
    b"\r\n",
    b"\r\n\r\n",
    b'Content-Disposition: form-data; name="file"',
    b"content-disposition: form-data; name=a",
]


@given(st.lists(st.binary(max_size=30) | st.sampled_from(_PIECES), max_size=12))
def test_any_bytes_are_a_form_or_refused(chunks: list[bytes]) -> None:
    try:
        run(_read(chunks))
    except (S3Error, IncompleteBody):
        return


def test_what_stands_before_the_file_is_bounded() -> None:
    for body in (
        _encode([("a", "x" * FIELDS_MAX_BYTES)], b"abc"),
        _encode([(f"a{number}", "x" * 1000) for number in range(100)], b"abc"),
        b"--xYx\r\n" + b"x" * 2 * FIELDS_MAX_BYTES,
        b"x" * 2 * FIELDS_MAX_BYTES,
    ):
        with pytest.raises(S3Error) as error:
            run(_read([body]))
        assert error.value.code == "MaxPostPreDataLengthExceededError"


@given(st.text(max_size=60) | st.text(max_size=30).map(lambda text: f"multipart/form-data; boundary={text}"))
def test_any_content_type_has_a_boundary_or_not(text: str) -> None:
    try:
        boundary = boundary_of(text)
    except UnicodeEncodeError:
        assert not text.isascii()  # header text is latin-1
        return
    assert boundary is None or 1 <= len(boundary) <= 70
