"""When a certificate counts as renewed, and who listens."""

import socket
import ssl
from pathlib import Path

import pytest

from holdfast.cli.certificate import Certificate, listeners


class Pairs:
    """Files that are a pair when they hold the same text."""

    def __init__(self, folder: Path) -> None:
        self.certificate, self.key = folder / "cert", folder / "key"
        self.write("one")

    def write(self, text: str, key: str | None = None) -> None:
        self.certificate.write_text(text)
        self.key.write_text(key or text)


@pytest.fixture
def pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pairs:
    class Context:
        def __init__(self, protocol: object) -> None:
            pass

        def load_cert_chain(self, one: Path, two: Path, password: object) -> None:
            if one.read_text() != two.read_text():
                raise ssl.SSLError("key values mismatch")

    monkeypatch.setattr(ssl, "SSLContext", Context)
    return Pairs(tmp_path)


def test_a_change_counts_once_and_when_it_has_settled(pairs: Pairs) -> None:
    watched = Certificate(pairs.certificate, pairs.key)
    assert not watched.renewed()
    pairs.write("two")
    assert [watched.renewed() for _ in range(3)] == [False, True, False]
    pairs.write("three")
    assert not watched.renewed()
    pairs.write("four")
    assert [watched.renewed() for _ in range(3)] == [False, True, False]


def test_what_is_written_anew_with_the_same_text_is_no_change(pairs: Pairs) -> None:
    watched = Certificate(pairs.certificate, pairs.key)
    pairs.certificate.unlink()
    pairs.write("one")
    assert [watched.renewed() for _ in range(3)] == [False] * 3


def test_a_pair_that_does_not_fit_waits_for_the_rest(pairs: Pairs, caplog: pytest.LogCaptureFixture) -> None:
    watched = Certificate(pairs.certificate, pairs.key)
    pairs.write("two", "one")
    assert [watched.renewed() for _ in range(4)] == [False] * 4
    pairs.key.unlink()
    assert [watched.renewed() for _ in range(4)] == [False] * 4
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]
    pairs.write("two")
    assert [watched.renewed() for _ in range(3)] == [False, True, False]


def test_listeners_are_those_of_the_port() -> None:
    with socket.socket() as one, socket.socket(socket.AF_INET6) as two, socket.socket() as other:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
        assert listeners(port) == frozenset()
        one.listen()
        other.connect(("127.0.0.1", port))
        assert len(listeners(port)) == 1
        two.bind(("::1", port))
        two.listen()
        assert len(listeners(port)) == 2
    assert listeners(port) == frozenset()
