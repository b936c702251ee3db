"""Each error names the cause and the next step."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from holdfast.cli.client.failures import Asked, NoSuchBucket, translated
from holdfast.core.errors import (
    AccessDenied,
    Corrupt,
    Full,
    HoldfastError,
    InvalidRequest,
    NodeDown,
    NotFound,
    PreconditionFailed,
    RemoteProtocolError,
    Timeout,
    Unavailable,
)

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
ASKED = Asked("GetObject", "http://store:9000", "home", "photos", "a.jpg", NOW)


def answered(code: str, status: int, message: str = "", date: datetime = NOW) -> boto.ClientError:
    response: Any = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": {"date": format_datetime(date)}},
    }
    return boto.ClientError(response, "GetObject")


@pytest.mark.parametrize(
    ("code", "status", "kind", "words"),
    [
        ("NoSuchBucket", 404, NoSuchBucket, "no bucket 'photos' at http://store:9000"),
        ("NoSuchKey", 404, NotFound, "s3://photos/a.jpg: there is no such object"),
        ("404", 404, NotFound, "there is no such object"),
        ("NoSuchVersion", 404, NotFound, "ls --versions"),
        ("InvalidAccessKeyId", 403, AccessDenied, "does not know the access key of profile home"),
        ("SignatureDoesNotMatch", 403, AccessDenied, "not this secret key for it: check AWS_SECRET_ACCESS_KEY"),
        ("AccessDenied", 403, AccessDenied, "may not do GetObject there; ask for a grant"),
        ("ExpiredToken", 400, AccessDenied, "log in again"),
        ("SlowDown", 503, Unavailable, "try again later"),
        ("ServiceUnavailable", 503, Unavailable, "holdfast status"),
        ("InsufficientStorage", 507, Full, "add a drive"),
        ("PreconditionFailed", 412, PreconditionFailed, "changed meanwhile"),
        ("BadDigest", 400, Corrupt, "damaged on the way"),
        ("NotImplemented", 501, InvalidRequest, "does not have GetObject"),
        ("Teapot", 418, InvalidRequest, "answered 418 Teapot"),
        ("Weird", 520, Unavailable, "answered 520"),
    ],
)
def test_what_the_server_answers(code: str, status: int, kind: type[HoldfastError], words: str) -> None:
    error = translated(answered(code, status), ASKED)
    assert type(error) is kind
    assert words in str(error)


@pytest.mark.parametrize("code", ["RequestTimeTooSkewed", "SignatureDoesNotMatch", "AccessDenied", "403"])
def test_a_wrong_clock_is_told_with_its_error(code: str) -> None:
    error = translated(answered(code, 403, date=NOW - timedelta(minutes=42)), ASKED)
    assert "42 minutes ahead of the server's" in str(error)
    assert "NTP" in str(error)
    behind = translated(answered(code, 403, date=NOW + timedelta(minutes=42)), ASKED)
    assert "42 minutes behind" in str(behind)


URL = "http://store:9000/photos"


@pytest.mark.parametrize(
    ("raised", "kind", "words"),
    [
        (boto.NoCredentialsError(), AccessDenied, "set AWS_ACCESS_KEY_ID"),
        (boto.ProfileNotFound(profile="hoem"), InvalidRequest, "aws configure list-profiles"),
        (boto.PartialCredentialsError(provider="env", cred_var="AWS_SECRET_ACCESS_KEY"), AccessDenied, "half of a key"),
        (boto.EndpointConnectionError(endpoint_url=URL, error="x: Connection refused"), NodeDown, "--endpoint-url"),
        (boto.ConnectTimeoutError(endpoint_url=URL), Timeout, "does not answer in time"),
        (boto.ReadTimeoutError(endpoint_url=URL), Timeout, "does not answer in time"),
        (
            boto.SSLError(
                endpoint_url=URL, error="[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed"
            ),
            AccessDenied,
            "not trusted (self-signed): name the authority's PEM file in AWS_CA_BUNDLE",
        ),
        (boto.SSLError(endpoint_url=URL, error="[SSL: WRONG_VERSION_NUMBER]"), NodeDown, "write http://"),
        (boto.ConnectionClosedError(endpoint_url=URL), Unavailable, "give the same command again"),
        (ResponseParserError("<html>"), RemoteProtocolError, "not as S3 does"),
        (ValueError("Invalid endpoint: x"), InvalidRequest, "Invalid endpoint"),
    ],
)
def test_what_never_reached_the_server(raised: Exception, kind: type[HoldfastError], words: str) -> None:
    error = translated(raised, ASKED)
    assert type(error) is kind
    assert words in str(error)


def test_a_bug_is_no_error_of_the_users() -> None:
    with pytest.raises(ZeroDivisionError):
        translated(ZeroDivisionError(), ASKED)
