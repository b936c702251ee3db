"""Range and conditional reads. Pure: header text and an object's facts in, what to do out.

RFC 9110, sections 13 and 14; where S3 differs (several ranges at once are answered whole), as S3.
"""

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from holdfast.core import ranges
from holdfast.core.errors import InvalidRequest
from holdfast.core.ranges import ByteRange
from holdfast.gateways.s3.errors import S3Error

SOURCE_PREFIX = "x-amz-copy-source-"

_RANGE = re.compile(r"bytes=(\d{0,19})-(\d{0,19})", re.ASCII)


def parse_range(text: str | None, size: int) -> ByteRange | None:
    """The part of an object that a Range header asks for; None is all of it. Raises InvalidRange."""
    try:
        return ranges.parse_range(text, size) if text is not None else None
    except InvalidRequest:
        raise unsatisfiable(text or "", size) from None


def unsatisfiable(text: str, size: int) -> S3Error:
    return S3Error(
        "InvalidRange",
        "The requested range is not satisfiable",
        details={"RangeRequested": text, "ActualObjectSize": str(size)},
        headers=((b"content-range", f"bytes */{size}".encode("ascii")),),
    )


def check_read(headers: Mapping[str, str], etag: str, modified_seconds: int) -> None:
    """Raises PreconditionFailed or NotModified unless the object may be answered.

    An ETag condition that holds makes the date condition of its pair count for nothing.
    """
    match = headers.get("if-match")
    if match is not None:
        if not _matches(match, etag):
            raise _failed("If-Match")
    elif (since := _date(headers.get("if-unmodified-since"))) is not None and modified_seconds > since:
        raise _failed("If-Unmodified-Since")
    none_match = headers.get("if-none-match")
    if none_match is not None:
        if _matches(none_match, etag):
            raise S3Error("NotModified")
    elif (since := _date(headers.get("if-modified-since"))) is not None and modified_seconds <= since:
        raise S3Error("NotModified")


def check_source(headers: Mapping[str, str], etag: str, modified_seconds: int) -> None:
    """As `check_read` for the source of a copy, whose conditions have names of their own and fail in one way."""
    conditions = {
        name.removeprefix(SOURCE_PREFIX): value for name, value in headers.items() if name.startswith(SOURCE_PREFIX)
    }
    try:
        check_read(conditions, etag, modified_seconds)
    except S3Error:
        raise S3Error("PreconditionFailed", "At least one of the pre-conditions you specified did not hold") from None


def parse_source_range(text: str | None) -> ByteRange | None:
    """What of its source a part is made of. Unlike a read's, such a range must be complete."""
    if text is None:
        return None
    match = _RANGE.fullmatch(text)
    if match is None or "" in match.groups() or int(match[1]) > int(match[2]):
        raise S3Error(
            "InvalidArgument",
            "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the "
            "zero-based offsets of the first and last bytes to copy",
            details={"ArgumentName": "x-amz-copy-source-range", "ArgumentValue": text},
        )
    return ByteRange(int(match[1]), int(match[2]) + 1)


def range_applies(headers: Mapping[str, str], etag: str, modified_seconds: int) -> bool:
    """Whether If-Range lets the range count."""
    text = headers.get("if-range")
    if text is None:
        return True
    text = text.strip()
    if text.startswith(('"', "W/")):
        return text == f'"{etag}"'
    return _date(text) == modified_seconds


def _matches(text: str, etag: str) -> bool:
    candidates = [candidate.strip() for candidate in text.split(",")]
    return any(
        candidate == "*" or candidate.removeprefix("W/").strip('"') == etag for candidate in candidates if candidate
    )


def _date(text: str | None) -> int | None:
    """Seconds since 1970; None when there is no date that can be read: such a condition does not count."""
    if text is None:
        return None
    try:
        return int(parsedate_to_datetime(text.strip()).timestamp())
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def _failed(condition: str) -> S3Error:
    return S3Error(
        "PreconditionFailed",
        "At least one of the pre-conditions you specified did not hold",
        details={"Condition": condition},
    )
