"""AWS Signature Version 4 in headers, as a client makes it.

It shares no code with the gateway that verifies: an error in one does not hide in the other.
https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
"""

import hmac
from collections.abc import Mapping
from functools import lru_cache
from hashlib import sha256


def authorization(
    method: str,
    path: str,
    query: str,
    headers: Mapping[str, str],
    payload: str,
    access_key: str,
    key: bytes,
    region: str,
) -> str:
    """The header of that name. `path` is as it travels, quoted; `query` is quoted, and in order of name, then value.
    Header names are lower-case, "host" and "x-amz-date" among them, and all are signed. `key` is the `signing_key`."""
    names = sorted(headers)
    joined = ";".join(names)
    lines = "".join(f"{name}:{' '.join(headers[name].split())}\n" for name in names)
    canonical = f"{method}\n{path}\n{query}\n{lines}\n{joined}\n{payload}"
    date = headers["x-amz-date"]
    scope = f"{date[:8]}/{region}/s3/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{date}\n{scope}\n{sha256(canonical.encode()).hexdigest()}"
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    return f"AWS4-HMAC-SHA256 Credential={access_key}/{scope}, SignedHeaders={joined}, Signature={signature}"


@lru_cache(maxsize=16)
def signing_key(secret_key: str, day: str, region: str) -> bytes:
    """The secret key for a day, as "20130524", and a region."""
    key = ("AWS4" + secret_key).encode()
    for word in (day, region, "s3", "aws4_request"):
        key = hmac.digest(key, word.encode(), "sha256")
    return key
