"""Requests signed for the tests, in the form that the gateway's verifier takes."""

from hashlib import sha256

from holdfast.core.errors import NotFound
from holdfast.gateways.s3.sigv4 import Identity, signing_key
from holdfast.objects.access import ROOT, Access
from holdfast.testing.signing import Signer

# The key pair, time and region of every example in AWS's documentation.
ACCESS_KEY = "AKIAIOSFODNN7EXAMPLE"
SECRET_KEY = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
TIMESTAMP = "20130524T000000Z"
NOW = 1369353600.0
REGION = "us-east-1"
SCOPE = "20130524/us-east-1/s3/aws4_request"
SIGNER = Signer(ACCESS_KEY, SECRET_KEY)


class ExampleKey:
    """Credentials of that key pair."""

    def __init__(self) -> None:
        self.granted = ROOT

    def secret(self, access_key: str) -> str:
        if access_key != ACCESS_KEY:
            raise NotFound(access_key)
        return SECRET_KEY

    def access(self, access_key: str) -> Access:
        self.secret(access_key)
        return self.granted


def identity(payload: str, seed: str) -> Identity:
    """Of a request whose head was checked."""
    return Identity(ACCESS_KEY, payload, seed, signing_key(SECRET_KEY, "20130524", REGION), TIMESTAMP, SCOPE)


def signed(
    method: str, path: str, query: list[tuple[str, str]], headers: dict[str, str], body: bytes
) -> dict[str, str]:
    """Headers of a signed request."""
    return SIGNER.sign(method, path, query, {"host": "localhost", **headers}, sha256(body).hexdigest(), TIMESTAMP)
