"""A key management service that keeps the key-encryption key: Vault's and OpenBao's transit protocol.

    POST URL/v1/MOUNT/encrypt/KEY  {"plaintext": base64}          -> {"data": {"ciphertext": "vault:v1:..."}}
    POST URL/v1/MOUNT/decrypt/KEY  {"ciphertext": "vault:v1:..."} -> {"data": {"plaintext": base64}}

with the token in `X-Vault-Token`; errors come as {"errors": [text, ...]}. The service seals and opens 32 bytes, and its
key never leaves it. Only what it sealed is stored.

Rules.
- Where the service is comes from the settings and never from the drives: else whoever can write to a drive would be
  sent the token. For the same reason no redirect is followed.
- Token and key travel over TLS, or to this machine itself.
- The token is read anew for each call, so that an agent may renew it. It is in no message.
"""

import base64
import binascii
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from holdfast.core.errors import AccessDenied, InvalidRequest, Unavailable

# A service that is asked seldom may have to wake up; a start that hangs for longer is better told why.
ANSWER_MAX_SECONDS = 10.0

# An answer is some hundred bytes; a proxy's page of errors is not read to its end.
_ANSWER_MAX_BYTES = 64 * 1024

_KEY_PATH = re.compile(r"(/v1/[^?#]+)/keys/([A-Za-z0-9_.-]+)")
_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})


def parse_kms(text: str) -> str:
    """The address of a transit key, as its own API names it. Raises InvalidRequest."""
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        raise InvalidRequest(f"{text!r} is not an address") from None
    if (
        url.scheme not in ("http", "https")
        or not url.hostname
        or port == 0
        or url.query
        or url.fragment
        or "@" in url.netloc
    ):
        raise InvalidRequest(f"{text!r} is not https://HOST:PORT/v1/MOUNT/keys/NAME")
    if url.scheme == "http" and url.hostname not in _LOCAL:
        raise InvalidRequest(f"{text!r} would send the token in the clear: https, unless it is this machine")
    if _KEY_PATH.fullmatch(url.path) is None:
        raise InvalidRequest(
            f"{text!r} names no key: https://HOST:PORT/v1/MOUNT/keys/NAME, such as /v1/transit/keys/holdfast"
        )
    return text


@dataclass(frozen=True, slots=True)
class Kms:
    """One key of a service. Every call blocks, for up to ANSWER_MAX_SECONDS."""

    address: str
    """As `parse_kms` takes it."""
    token_file: Path

    def seal(self, key: bytes) -> str:
        """What only the service opens again. Raises as `open`."""
        sealed = self._call("encrypt", {"plaintext": base64.b64encode(key).decode()}, "ciphertext")
        if self.open(sealed) != key:
            raise Unavailable(f"{self.address} does not give back what it was given")
        return sealed

    def open(self, sealed: str) -> bytes:
        """The key. Raises Unavailable when the service does not answer, AccessDenied when it refuses."""
        try:
            return base64.b64decode(self._call("decrypt", {"ciphertext": sealed}, "plaintext"), validate=True)
        except binascii.Error:
            raise Unavailable(f"{self.address} answers no key") from None

    def _call(self, verb: str, body: dict[str, str], wanted: str) -> str:
        url = urlsplit(self.address)
        named = _KEY_PATH.fullmatch(url.path)
        assert named is not None, "parsed before"
        status, answer = self._post(url, f"{named[1]}/{verb}/{named[2]}", json.dumps(body).encode())
        document = _decode(answer)
        if status == 200:
            value = document.get("data")
            found = value.get(wanted) if isinstance(value, dict) else None
            if isinstance(found, str) and found:
                return found
            raise Unavailable(f"{self.address} answers something else than a transit key does")
        errors = document.get("errors")
        said = "; ".join(map(str, errors)) if isinstance(errors, list) and errors else "no reason given"
        if 400 <= status < 500 and status != 429:
            raise AccessDenied(f"{self.address} refuses to {verb} ({status}: {said}): look at token, policy and key")
        raise Unavailable(f"{self.address} cannot {verb} now ({status}: {said})")

    def _post(self, url: SplitResult, path: str, body: bytes) -> tuple[int, bytes]:
        # What few commands need is not imported by all.
        import http.client

        make = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
        assert url.hostname is not None, "parsed before"
        connection = make(url.hostname, url.port, timeout=ANSWER_MAX_SECONDS)
        headers = {"X-Vault-Token": self._token(), "X-Vault-Request": "true", "Content-Type": "application/json"}
        try:
            connection.request("POST", path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read(_ANSWER_MAX_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"{self.address} does not answer: {error}") from None
        finally:
            connection.close()

    def _token(self) -> str:
        try:
            token = self.token_file.read_text("ascii").strip()
        except OSError as error:
            raise AccessDenied(f"{self.token_file}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise AccessDenied(f"{self.token_file} holds no token") from None
        if not token.isprintable() or not token:
            raise AccessDenied(f"{self.token_file} holds no token")
        return token


def _decode(answer: bytes) -> dict[str, Any]:
    """An object, empty when it is none."""
    try:
        document = json.loads(answer)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
