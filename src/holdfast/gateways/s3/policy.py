"""The policy of a form upload: what its signer allows whoever holds it to put. Pure: text and fields in, a verdict out.

Rules. Every condition must hold, of the fields as they will be used: the bucket is the one that is written to, the key
has its file name filled in. Every field must be the subject of a condition, except those that prove the signature, the
file, fields named `x-ignore-*`, and checksums of the file, which can only have it refused. A condition that is not
understood refuses the whole policy.

https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-HTTPPOSTConstructPolicy.html
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from holdfast.gateways.s3 import sigv2
from holdfast.gateways.s3.errors import S3Error

_EXPIRATION = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d{1,9})?Z", re.ASCII)
_UNCONDITIONAL = frozenset(("file", "policy", "x-amz-signature", *sigv2.FORM_FIELDS))
_FREE_PREFIXES = ("x-ignore-", "x-amz-checksum-")
_RANGE_MAX = 2**63


@dataclass(frozen=True, slots=True)
class Policy:
    """What a policy says."""

    expires: float
    """Seconds since 1970."""
    equal: tuple[tuple[str, str], ...]
    starts: tuple[tuple[str, str], ...]
    size_min: int
    size_max: int

    def check(self, fields: Mapping[str, str], now: float) -> None:
        """Raises AccessDenied. `fields` by name in lower case, the bucket among them, the key as it will be used."""
        if now >= self.expires:
            raise _refused("Policy expired.")
        for name, value in self.equal:
            if fields.get(name) != value:
                raise _refused(f'Policy Condition failed: ["eq", "${name}", "{value}"]')
        for name, value in self.starts:
            if name not in fields or not fields[name].startswith(value):
                raise _refused(f'Policy Condition failed: ["starts-with", "${name}", "{value}"]')
        named = {name for name, _ in (*self.equal, *self.starts)}
        for name in fields:
            if name not in named and name not in _UNCONDITIONAL and not name.startswith(_FREE_PREFIXES):
                raise _refused(f"Extra input fields: {name}")


def parse_policy(text: str) -> Policy:
    """A policy as the form carries it, in base64. Raises InvalidPolicyDocument."""
    try:
        document = json.loads(base64.b64decode(text, validate=True), object_pairs_hook=_once_each)
    except (binascii.Error, ValueError, RecursionError):
        raise _invalid("Invalid JSON.") from None
    if not isinstance(document, dict) or not document.keys() <= {"expiration", "conditions"}:
        raise _invalid("Unexpected or missing properties.")
    conditions = document.get("conditions")
    if not isinstance(conditions, list):
        raise _invalid("Missing conditions.")
    equal: list[tuple[str, str]] = []
    starts: list[tuple[str, str]] = []
    size_min, size_max = 0, _RANGE_MAX
    for condition in conditions:
        if isinstance(condition, dict) and condition:
            equal += [_pair(name, value) for name, value in condition.items()]
        elif not isinstance(condition, list) or len(condition) != 3 or not isinstance(condition[0], str):
            raise _invalid("Invalid condition.")
        elif condition[0].lower() == "content-length-range":
            low, high = _size(condition[1]), _size(condition[2])
            size_min, size_max = max(size_min, low), min(size_max, high)
        elif condition[0].lower() in ("eq", "starts-with"):
            if not isinstance(condition[1], str) or not condition[1].startswith("$"):
                raise _invalid("A condition's field must begin with $.")
            (equal if condition[0].lower() == "eq" else starts).append(_pair(condition[1][1:], condition[2]))
        else:
            raise _invalid("Unknown condition.")
    return Policy(_expiration(document.get("expiration")), tuple(equal), tuple(starts), size_min, size_max)


def _once_each(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object, each name in it once: the first of two conditions would be forgotten otherwise."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is there twice")
    return found


def _pair(name: str, value: object) -> tuple[str, str]:
    if not name or not isinstance(value, str):
        raise _invalid("A condition compares a field with a text.")
    return name.lower(), value


def _size(value: object) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _RANGE_MAX:
        raise _invalid("content-length-range takes two sizes.")
    return value


def _expiration(value: object) -> float:
    match = _EXPIRATION.fullmatch(value) if isinstance(value, str) else None
    try:
        if match is not None:
            return datetime.strptime(match[1], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC).timestamp()
    except ValueError:
        pass
    raise _invalid("Invalid or missing expiration.")


def _invalid(why: str) -> S3Error:
    return S3Error("InvalidPolicyDocument", f"Invalid Policy: {why}")


def _refused(why: str) -> S3Error:
    return S3Error("AccessDenied", f"Invalid according to Policy: {why}")
