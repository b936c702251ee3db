"""The client's signatures against botocore's and against the vectors of AWS's documents."""

import datetime as dt
from collections.abc import Sequence
from urllib.parse import quote

import pytest
from botocore import auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from holdfast.testing.signing import CHUNKED, UNSIGNED, Signer, canonical_query, chunked_length, signature

DATE = "20261121T113000Z"
NOW = dt.datetime(2026, 11, 21, 11, 30, tzinfo=dt.UTC)
SIGNER = Signer("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "eu-west-3")


def by_botocore(
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    path: str,
    query: Sequence[tuple[str, str]],
    headers: dict[str, str],
    payload: str,
) -> str:
    monkeypatch.setattr(auth, "get_current_datetime", lambda *args, **kwargs: NOW.replace(tzinfo=None))
    url = "http://" + headers["host"] + path + ("?" + canonical_query(query) if query else "")
    request = AWSRequest(method=method, url=url, headers={**headers, "X-Amz-Content-SHA256": payload})
    request.context["payload_signing_enabled"] = payload != UNSIGNED
    credentials = Credentials(SIGNER.access_key, SIGNER.secret_key)
    signing = auth.S3SigV4Auth(credentials, "s3", SIGNER.region)
    monkeypatch.setattr(signing, "payload", lambda request: payload)
    signing.add_auth(request)
    return str(request.headers["Authorization"]).rpartition("=")[2]


@pytest.mark.parametrize(
    ("method", "path", "query", "headers", "payload"),
    [
        ("GET", "/bucket/key", [], {}, UNSIGNED),
        ("GET", "/bucket/" + quote("a b/ä~+&="), [], {"range": "bytes=0-99"}, UNSIGNED),
        ("GET", "/bucket", [("list-type", "2"), ("prefix", "a/ +~"), ("delimiter", "/")], {}, UNSIGNED),
        ("GET", "/bucket", [("a-b", "1"), ("a", "2"), ("a", "1"), ("a.b", ""), ("A", "-")], {}, UNSIGNED),
        ("PUT", "/bucket/key", [], {"content-type": "text/plain", "x-amz-meta-a": "one   two"}, "ab" * 32),
        ("POST", "/bucket", [("delete", "")], {"content-md5": "1B2M2Y8AsgTpgAmY7PhCfg=="}, "cd" * 32),
        ("PUT", "/bucket/key", [("partNumber", "10"), ("uploadId", "x/=y")], {"if-match": '"abc"'}, CHUNKED),
    ],
)
def test_signs_as_botocore_does(
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    path: str,
    query: list[tuple[str, str]],
    headers: dict[str, str],
    payload: str,
) -> None:
    headers = {"host": "127.0.0.1:9000", **headers}
    signed = SIGNER.sign(method, path, query, headers, payload, DATE)
    assert signature(signed) == by_botocore(monkeypatch, method, path, query, headers, payload)
    assert f"Credential={SIGNER.access_key}/20261121/eu-west-3/s3/aws4_request," in signed["authorization"]


def test_chunks_as_in_the_documents_of_aws() -> None:
    signer = Signer("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
    date = "20130524T000000Z"
    headers = {
        "host": "s3.amazonaws.com",
        "x-amz-storage-class": "REDUCED_REDUNDANCY",
        "content-encoding": "aws-chunked",
        "x-amz-decoded-content-length": "66560",
        "content-length": "66824",
    }
    signed = signer.sign("PUT", "/examplebucket/chunkObject.txt", [], headers, CHUNKED, date)
    assert signature(signed) == "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"
    pieces = list(signer.chunks(b"a" * 66560, signature(signed), date))
    assert [frame for frame, _, _ in pieces] == [
        b"10000;chunk-signature=ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648\r\n",
        b"400;chunk-signature=0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497\r\n",
        b"0;chunk-signature=b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9\r\n",
    ]
    assert sum(len(piece) for triple in pieces for piece in triple) == 66824


@pytest.mark.parametrize("length", [0, 1, 65535, 65536, 65537, 200_000])
def test_the_length_of_a_chunked_body_is_known_in_advance(length: int) -> None:
    pieces = SIGNER.chunks(b"x" * length, "0" * 64, DATE)
    assert sum(len(piece) for triple in pieces for piece in triple) == chunked_length(length)
