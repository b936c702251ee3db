"""The transit protocol against a real server: what is sent, what is refused, and what is said of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.cli.kms import Kms, parse_kms
from holdfast.core.errors import AccessDenied, InvalidRequest, Unavailable
from tests.unit.cli.transit import TOKEN, Transit, transit

KEY = bytes(range(32))


@pytest.fixture
def server() -> Iterator[Transit]:
    with transit() as server:
        yield server


@pytest.fixture
def kms(server: Transit, tmp_path: Path) -> Kms:
    token = tmp_path / "token"
    token.write_text(TOKEN + "\n")
    return Kms(server.address, token)


def test_what_was_sealed_is_opened(server: Transit, kms: Kms) -> None:
    sealed = kms.seal(KEY)
    assert sealed.startswith("vault:v1:")
    assert kms.open(sealed) == KEY
    assert set(server.asked) == {"/v1/transit/encrypt/holdfast", "/v1/transit/decrypt/holdfast"}


def test_what_another_key_sealed_is_refused(kms: Kms) -> None:
    with transit() as other:
        foreign = Kms(other.address, kms.token_file).seal(KEY)
    with pytest.raises(AccessDenied, match="message authentication failed"):
        kms.open(foreign)


def test_a_token_that_may_not_is_said_and_not_shown(kms: Kms) -> None:
    sealed = kms.seal(KEY)
    kms.token_file.write_text("hvs.another")
    with pytest.raises(AccessDenied, match=r"403: permission denied") as refused:
        kms.open(sealed)
    assert "hvs." not in str(refused.value)
    kms.token_file.write_text(TOKEN)
    assert kms.open(sealed) == KEY, "the token is read anew"


@pytest.mark.parametrize("text", ["", "\n", "two\nlines", "caf\u00e9"])
def test_a_file_without_a_token(kms: Kms, text: str) -> None:
    kms.token_file.write_text(text)
    with pytest.raises(AccessDenied, match="holds no token"):
        kms.seal(KEY)
    kms.token_file.unlink()
    with pytest.raises(AccessDenied, match="No such file"):
        kms.seal(KEY)


def test_a_service_that_is_not_there_or_cannot(server: Transit, kms: Kms) -> None:
    sealed = kms.seal(KEY)
    server.is_sealed = True
    with pytest.raises(Unavailable, match="Vault is sealed"):
        kms.open(sealed)
    gone = Kms("http://127.0.0.1:1/v1/transit/keys/holdfast", kms.token_file)
    with pytest.raises(Unavailable, match="does not answer"):
        gone.open(sealed)


@pytest.mark.parametrize(
    "answer",
    [
        (200, b""),
        (200, b"[]"),
        (200, b"<html>"),
        (200, b'{"data": null}'),
        (200, b'{"data": {"plaintext": 7}}'),
        (200, b'{"data": {"plaintext": "no base64"}}'),
        (302, b""),
        (500, b"oops"),
    ],
)
def test_answers_of_something_else(server: Transit, kms: Kms, answer: tuple[int, bytes]) -> None:
    """A redirect is not followed: the token would go with it."""
    sealed = kms.seal(KEY)
    server.answer = answer
    with pytest.raises(Unavailable):
        kms.open(sealed)
    assert "/elsewhere" not in server.asked


def test_a_key_that_comes_back_as_another_is_not_relied_on(server: Transit, kms: Kms) -> None:
    server.answer = (200, b'{"data": {"ciphertext": "vault:v1:x", "plaintext": "AAAA"}}')
    with pytest.raises(Unavailable, match="does not give back"):
        kms.seal(KEY)


@pytest.mark.parametrize(
    "text",
    [
        "https://vault.example:8200/v1/transit/keys/holdfast",
        "https://vault.example/v1/team/a/transit/keys/hold-fast.2",
        "http://127.0.0.1:8200/v1/transit/keys/holdfast",
        "http://[::1]:8200/v1/transit/keys/holdfast",
    ],
)
def test_addresses(text: str) -> None:
    assert parse_kms(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "vault:8200",
        "ftp://vault/v1/transit/keys/holdfast",
        "http://vault.example/v1/transit/keys/holdfast",
        "https://vault.example/transit/keys/holdfast",
        "https://vault.example/v1/transit/encrypt/holdfast",
        "https://vault.example/v1/transit/keys/",
        "https://user:secret@vault.example/v1/transit/keys/holdfast",
        "https://:secret@vault.example/v1/transit/keys/holdfast",
        "https://vault.example/v1/transit/keys/holdfast?x=1",
        "https://vault.example:port/v1/transit/keys/holdfast",
    ],
)
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_kms(text)
