"""Signatures: AWS's published examples, and everything that must be refused."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from holdfast.gateways.s3.call import split_query
from holdfast.gateways.s3.errors import S3Error
from holdfast.gateways.s3.sigv4 import (
    EMPTY_SHA256,
    STREAMING_SIGNED,
    STREAMING_SIGNED_TRAILER,
    UNSIGNED_PAYLOAD,
    Identity,
    SignedRequest,
    canonical_path,
    canonical_query,
    verify,
)
from tests.unit.gateways.s3.signing import ACCESS_KEY, NOW, REGION, SCOPE, SIGNER, TIMESTAMP, ExampleKey

_HOST = {"host": "examplebucket.s3.amazonaws.com"}
_DATE = {"x-amz-date": TIMESTAMP}
_EMPTY = {"x-amz-content-sha256": EMPTY_SHA256}


def _authorization(names: str, signature: str) -> str:
    return f"AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/{SCOPE},SignedHeaders={names},Signature={signature}"


def _request(method: str, target: str, headers: Mapping[str, str], names: str, signature: str) -> SignedRequest:
    path, _, query = target.partition("?")
    return SignedRequest(
        method,
        path.encode(),
        split_query(query.encode()),
        {**headers, "authorization": _authorization(names, signature)},
    )


def _verify(request: SignedRequest, now: float = NOW, region: str = REGION) -> Identity:
    return verify(request, ExampleKey(), region, now)


# https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html, sigv4-streaming.html,
# sigv4-streaming-trailers.html: the examples, each with the signature printed there.
_EXAMPLES = {
    "get": _request(
        "GET",
        "/test.txt",
        {**_HOST, **_DATE, **_EMPTY, "range": "bytes=0-9"},
        "host;range;x-amz-content-sha256;x-amz-date",
        "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
    ),
    "put": _request(
        "PUT",
        "/test%24file.text",
        {
            **_HOST,
            **_DATE,
            "date": "Fri, 24 May 2013 00:00:00 GMT",
            "x-amz-storage-class": "REDUCED_REDUNDANCY",
            "x-amz-content-sha256": "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072",
        },
        "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
        "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
    ),
    "lifecycle": _request(
        "GET",
        "/?lifecycle",
        {**_HOST, **_DATE, **_EMPTY},
        "host;x-amz-content-sha256;x-amz-date",
        "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
    ),
    "list": _request(
        "GET",
        "/?max-keys=2&prefix=J",
        {**_HOST, **_DATE, **_EMPTY},
        "host;x-amz-content-sha256;x-amz-date",
        "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
    ),
    "chunked": _request(
        "PUT",
        "/examplebucket/chunkObject.txt",
        {
            **_DATE,
            "host": "s3.amazonaws.com",
            "x-amz-storage-class": "REDUCED_REDUNDANCY",
            "x-amz-content-sha256": STREAMING_SIGNED,
            "content-encoding": "aws-chunked",
            "x-amz-decoded-content-length": "66560",
            "content-length": "66824",
        },
        "content-encoding;content-length;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;"
        "x-amz-storage-class",
        "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9",
    ),
    "trailer": _request(
        "PUT",
        "/examplebucket/chunkObject.txt",
        {
            **_DATE,
            "host": "s3.amazonaws.com",
            "x-amz-storage-class": "REDUCED_REDUNDANCY",
            "x-amz-content-sha256": STREAMING_SIGNED_TRAILER,
            "content-encoding": "aws-chunked",
            "x-amz-decoded-content-length": "66560",
            "x-amz-trailer": "x-amz-checksum-crc32c",
        },
        "content-encoding;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;x-amz-storage-class;"
        "x-amz-trailer",
        "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e",
    ),
}

# https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html
_PRESIGNED = SignedRequest(
    "GET",
    b"/test.txt",
    split_query(
        b"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2F"
        b"aws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
        b"&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    ),
    _HOST,
)


@pytest.mark.parametrize("name", list(_EXAMPLES))
def test_published_examples(name: str) -> None:
    request = _EXAMPLES[name]
    assert _verify(request).access_key == ACCESS_KEY
    wrong = replace(request, method="DELETE")
    with pytest.raises(S3Error) as error:
        _verify(wrong)
    assert error.value.code == "SignatureDoesNotMatch"


def test_published_presigned_example() -> None:
    assert _verify(_PRESIGNED, NOW + 86400).payload == UNSIGNED_PAYLOAD
    with pytest.raises(S3Error) as error:
        _verify(_PRESIGNED, NOW + 86401)
    assert (error.value.code, error.value.message) == ("AccessDenied", "Request has expired")
    with pytest.raises(S3Error) as error:
        _verify(_PRESIGNED, NOW - 901)
    assert error.value.code == "AccessDenied"


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("X-Amz-Algorithm", "AWS4-HMAC-SHA1", "AuthorizationQueryParametersError"),
        ("X-Amz-Credential", "AKIAIOSFODNN7EXAMPLE", "AuthorizationQueryParametersError"),
        ("X-Amz-Credential", f"NOBODY/{SCOPE}", "InvalidAccessKeyId"),
        ("X-Amz-Date", "20130524", "AuthorizationQueryParametersError"),
        ("X-Amz-Date", "20130524T250000Z", "AccessDenied"),
        ("X-Amz-Expires", "604801", "AuthorizationQueryParametersError"),
        ("X-Amz-Expires", "0", "AuthorizationQueryParametersError"),
        ("X-Amz-Expires", "-1", "AccessDenied"),
        ("X-Amz-Expires", "x", "AuthorizationQueryParametersError"),
        ("X-Amz-Expires", "604800", "SignatureDoesNotMatch"),
        ("X-Amz-SignedHeaders", "range", "AuthorizationQueryParametersError"),
        ("X-Amz-SignedHeaders", "host;range", "AccessDenied"),
        ("X-Amz-Signature", "0" * 64, "SignatureDoesNotMatch"),
        ("X-Amz-Signature", "é", "SignatureDoesNotMatch"),
    ],
)
def test_presigned_is_checked_in_every_part(name: str, value: str, code: str) -> None:
    query = [(key, value if key == name else old) for key, old in _PRESIGNED.query]
    with pytest.raises(S3Error) as error:
        _verify(replace(_PRESIGNED, query=query))
    assert error.value.code == code


@pytest.mark.parametrize("position", range(6))
def test_presigned_needs_all_of_its_parts_and_none_twice(position: int) -> None:
    query = list(_PRESIGNED.query)
    for changed in (query[:position] + query[position + 1 :], [*query, query[position]]):
        with pytest.raises(S3Error):
            _verify(replace(_PRESIGNED, query=changed))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"authorization": None}, "AccessDenied"),
        ({"authorization": "AWS AKID:sig"}, "InvalidRequest"),
        ({"authorization": "AWS4-HMAC-SHA256 nonsense"}, "AuthorizationHeaderMalformed"),
        ({"x-amz-content-sha256": None}, "InvalidRequest"),
        ({"x-amz-content-sha256": "x"}, "InvalidArgument"),
        ({"x-amz-content-sha256": "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD"}, "NotImplemented"),
        ({"x-amz-content-sha256": "0" * 64}, "SignatureDoesNotMatch"),
        ({"x-amz-date": None}, "AccessDenied"),
        ({"x-amz-date": "yesterday"}, "AccessDenied"),
        ({"x-amz-date": "20130524T001501Z"}, "RequestTimeTooSkewed"),
        ({"x-amz-date": "20130523T234459Z"}, "RequestTimeTooSkewed"),
        ({"x-amz-date": "20130524T000001Z"}, "SignatureDoesNotMatch"),
        ({"x-amz-date": "20130523T235959Z"}, "AuthorizationHeaderMalformed"),
        ({"x-amz-meta-a": "unsigned"}, "AccessDenied"),
        ({"x-amz-security-token": "t"}, "InvalidToken"),
        ({"range": None}, "AccessDenied"),
        ({"range": "bytes=0-8"}, "SignatureDoesNotMatch"),
        ({"host": "other"}, "SignatureDoesNotMatch"),
    ],
)
def test_headers_are_checked_in_every_part(changes: dict[str, str | None], code: str) -> None:
    headers = {key: value for key, value in {**_EXAMPLES["get"].headers, **changes}.items() if value is not None}
    with pytest.raises(S3Error) as error:
        _verify(replace(_EXAMPLES["get"], headers=headers))
    assert error.value.code == code


def test_scope_is_checked() -> None:
    request = _EXAMPLES["get"]
    with pytest.raises(S3Error) as error:
        _verify(request, region="eu-west-1")
    assert (error.value.code, error.value.details) == ("AuthorizationHeaderMalformed", {"Region": "eu-west-1"})
    assert _verify(request, region="").access_key == ACCESS_KEY
    for scope in ("20130524/us-east-1/sts/aws4_request", "20130524/us-east-1/s3/aws3_request", "20130524/s3"):
        headers = {**request.headers, "authorization": request.headers["authorization"].replace(SCOPE, scope)}
        with pytest.raises(S3Error) as error:
            _verify(replace(request, headers=headers))
        assert error.value.code == "AuthorizationHeaderMalformed"


def test_the_port_may_be_lost_on_the_way() -> None:
    headers = SIGNER.sign("GET", "/b/k", (), {"host": "s3.example:9000"}, EMPTY_SHA256, TIMESTAMP)
    request = SignedRequest("GET", b"/b/k", (), {**headers, "host": "s3.example"})
    with pytest.raises(S3Error):
        _verify(request)
    assert _verify(replace(request, hosts=("s3.example:9000",))).access_key == ACCESS_KEY


def test_both_ways_of_signing_at_once_are_refused() -> None:
    with pytest.raises(S3Error) as error:
        _verify(replace(_EXAMPLES["get"], query=_PRESIGNED.query))
    assert error.value.code == "InvalidArgument"


@pytest.mark.parametrize(
    ("sent", "canonical"),
    [
        (b"/", "/"),
        (b"/a/../b//c", "/a/../b//c"),
        (b"/a%20b%2fc", "/a%20b/c"),
        (b"/%7Euser/~x", "/~user/~x"),
        (b"/a+b(c)", "/a%2Bb%28c%29"),
        ("/ä".encode(), "/%C3%A4"),
        (b"/%zz%", "/%25zz%25"),
    ],
)
def test_paths(sent: bytes, canonical: str) -> None:
    assert canonical_path(sent) == canonical


@given(st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5)), max_size=5))
def test_queries_are_canonical_in_any_order(query: list[tuple[str, str]]) -> None:
    text = canonical_query(query)
    assert text.isascii()
    assert canonical_query(query[::-1]) == text
    parsed = split_query(text.encode())
    assert sorted(parsed) == sorted((name, value) for name, value in query if name != "X-Amz-Signature")


@given(
    st.text(max_size=200)
    | st.from_regex(r"AWS4-HMAC-SHA256 Credential=.{0,40},SignedHeaders=.{0,20},Signature=.{0,70}"),
    st.lists(
        st.tuples(st.sampled_from([name for name, _ in _PRESIGNED.query] + ["a"]), st.text(max_size=20)), max_size=8
    ),
    st.binary(max_size=20),
)
def test_nothing_unsigned_passes_and_nothing_else_is_raised(
    authorization: str, query: list[tuple[str, str]], path: bytes
) -> None:
    for headers in ({**_EXAMPLES["get"].headers, "authorization": authorization}, dict(_HOST)):
        with pytest.raises(S3Error):
            _verify(SignedRequest("GET", b"/" + path, query, headers))
