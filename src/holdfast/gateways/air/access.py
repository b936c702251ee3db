"""Who may use air: whoever knows the token, or, where none is set, this machine alone.

Rules. The token is for everything: air knows no accounts. Without one, a request is served only if it comes from this
machine and is addressed to it by a loopback name: so a page in a browser here can neither reach air under a name of
its own that was made to point here (DNS rebinding) nor post a form across (its Origin tells).
"""

from collections.abc import Mapping
from hmac import compare_digest
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from holdfast.core.errors import InvalidRequest
from holdfast.gateways.air.errors import AirError

# 96 bits in hexadecimal have 24 characters; what is shorter than this was not drawn at random.
TOKEN_MIN_CHARS = 16

_CHALLENGE = ((b"www-authenticate", b"Bearer"),)


class MissingToken(InvalidRequest):
    """Air was asked to listen to other machines, and there is no token."""

    code = "missing_token"


def parse_token(text: str) -> str:
    """The token that a file holds. Raises InvalidRequest when it could not be sent in a header, or be guessed."""
    token = text.strip()
    if len(token) < TOKEN_MIN_CHARS or not token.isascii() or not token.isprintable() or " " in token:
        raise InvalidRequest(f"a token has {TOKEN_MIN_CHARS} or more printable ASCII characters, and no space")
    return token


def is_loopback(host: str) -> bool:
    """Whether a host name or address can only mean this machine."""
    if host == "localhost":
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def check_listen(host: str, *, has_token: bool) -> None:
    """Raises MissingToken unless air may listen on that host."""
    if not has_token and not is_loopback(host):
        raise MissingToken(f"{host} can be reached by others: without a token air serves this machine alone")


def check_access(token: str | None, scope: Mapping[str, Any], headers: Mapping[str, str]) -> None:
    """Raises AirError unless the request may be served."""
    if token is not None:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not compare_digest(given.strip().encode("latin-1"), token.encode("ascii")):
            raise AirError(401, "a token is needed: Authorization: Bearer TOKEN", _CHALLENGE)
        return
    client = scope.get("client")
    if not client or not is_loopback(client[0]):
        raise AirError(403, "without a token only this machine is served")
    if not _names_loopback(f"//{headers.get('host', '')}"):
        raise AirError(403, "without a token only requests to localhost are served")
    origin = headers.get("origin")
    if headers.get("sec-fetch-site") == "cross-site" or (origin is not None and not _names_loopback(origin)):
        raise AirError(403, "without a token pages of other sites are not served")


def _names_loopback(url: str) -> bool:
    try:
        return is_loopback(urlsplit(url).hostname or "")
    except ValueError:
        return False
