"""Which names a bucket and an object may have. S3's rules, kept to the letter: any client may have any bucket."""

import re
from ipaddress import AddressValueError, IPv4Address

from holdfast.core.errors import InvalidName
from holdfast.core.limits import BUCKET_NAME_MAX_CHARS, BUCKET_NAME_MIN_CHARS, KEY_MAX_BYTES
from holdfast.objects.errors import KeyTooLong

_BUCKET = re.compile(r"[a-z0-9][a-z0-9-]*(?:\.[a-z0-9][a-z0-9-]*)*")
_RESERVED_PREFIXES = ("xn--", "sthree-", "amzn-s3-demo-")
_RESERVED_SUFFIXES = ("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3")


def check_bucket_name(name: str) -> None:
    """Raises InvalidName unless `name` may name a general purpose bucket.

    Source: Amazon S3 User Guide, "General purpose bucket naming rules".
    """
    if not BUCKET_NAME_MIN_CHARS <= len(name) <= BUCKET_NAME_MAX_CHARS:
        raise InvalidName(f"a bucket name has {BUCKET_NAME_MIN_CHARS} to {BUCKET_NAME_MAX_CHARS} characters")
    if not _BUCKET.fullmatch(name) or name.endswith("-") or "-." in name:
        raise InvalidName("a bucket name is made of lower-case letters, digits, hyphens and single dots")
    if _is_ipv4(name):
        raise InvalidName("a bucket name must not look like an IP address")
    if name.startswith(_RESERVED_PREFIXES) or name.endswith(_RESERVED_SUFFIXES):
        raise InvalidName("this bucket name is reserved")


def encode_key(key: str) -> bytes:
    """The key in UTF-8. Raises InvalidName when it is empty or no text, KeyTooLong."""
    try:
        encoded = key.encode()
    except UnicodeEncodeError:
        raise InvalidName("an object key must be valid UTF-8") from None
    if not encoded:
        raise InvalidName("an object key must not be empty")
    if len(encoded) > KEY_MAX_BYTES:
        raise KeyTooLong(f"an object key has at most {KEY_MAX_BYTES} bytes, not {len(encoded)}")
    return encoded


def _is_ipv4(name: str) -> bool:
    try:
        IPv4Address(name)
    except AddressValueError:
        return False
    return True
