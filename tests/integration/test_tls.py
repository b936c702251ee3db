"""TLS: a certificate is replaced under a server that is being used, and no request is cut."""

import http.client
import os
import signal
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import boto3
import pytest
from botocore.config import Config
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from holdfast.cli.client.quick import Lane
from holdfast.core.limits import MIB
from holdfast.testing.s3_client import amz_date
from holdfast.testing.server import ACCESS_KEY, READY_MAX_SECONDS, SECRET_KEY, Server
from tests.integration.conftest import make_directories
from tests.integration.user import Client

# Both files are looked at every second, and a new generation of workers opens the store.
RENEWED_MAX_SECONDS = 60.0


@dataclass(frozen=True)
class Pair:
    """A self-signed certificate and its key, PEM."""

    certificate: bytes
    key: bytes

    @classmethod
    def make(cls, name: str) -> "Pair":
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
            .sign(key, hashes.SHA256())
        )
        form = serialization.PrivateFormat.PKCS8
        return cls(
            certificate.public_bytes(serialization.Encoding.PEM),
            key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()),
        )


class TlsServer(Server):
    """A server whose readiness is asked for over TLS."""

    def wait_ready(self, seconds: float = READY_MAX_SECONDS) -> None:
        deadline = time.monotonic() + seconds
        while True:
            connection = self.connection()
            try:
                connection.request("GET", "/health/ready")
                if connection.getresponse().status == 200:
                    return
            except OSError:
                pass
            finally:
                connection.close()
            assert time.monotonic() < deadline, self.log_tail()
            time.sleep(0.05)

    def connection(self) -> http.client.HTTPSConnection:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return http.client.HTTPSConnection(*self.address, context=context, timeout=60)

    def served(self) -> bytes:
        """The certificate that a new connection is shown, PEM."""
        connection = self.connection()
        connection.connect()
        assert isinstance(connection.sock, ssl.SSLSocket)
        shown = connection.sock.getpeercert(binary_form=True)
        connection.close()
        assert shown is not None
        return ssl.DER_cert_to_PEM_cert(shown).encode()

    def signed(self, method: str, path: str, payload: str, **headers: str) -> dict[str, str]:
        host = f"{self.address[0]}:{self.address[1]}"
        return self.signer.sign(method, path, (), {"host": host, **headers}, payload, amz_date())


@dataclass
class Site:
    server: TlsServer
    folder: Path
    pairs: list[Pair] = field(default_factory=lambda: [Pair.make("localhost")])

    def write(self, pair: Pair, *, version: int) -> None:
        """As certbot does: new files, and links that are swapped."""
        for name, text in (("cert", pair.certificate), ("key", pair.key)):
            (self.folder / f"{name}-{version}.pem").write_bytes(text)
            link = self.folder / f"{name}.new"
            link.symlink_to(f"{name}-{version}.pem")
            link.replace(self.folder / f"{name}.pem")

    def wait_served(self, pair: Pair) -> float:
        """Until ten connections in a row are shown it; the seconds it took.

        A connection in its handshake when the old workers stop is closed (docs/known-limits.md).
        """
        began = time.monotonic()
        row = 0
        while row < 10:
            try:
                row = row + 1 if self.server.served() == pair.certificate else 0
            except (ssl.SSLError, ConnectionError):
                row = 0
            assert time.monotonic() - began < RENEWED_MAX_SECONDS, self.server.log_tail()
            time.sleep(0.02)
        return time.monotonic() - began


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    directories = make_directories(tmp_path, 1)
    options = ("--tls-cert", str(tmp_path / "cert.pem"), "--tls-key", str(tmp_path / "key.pem"))
    server = TlsServer(directories, tmp_path / "log", workers=1, options=options)
    site = Site(server, tmp_path)
    site.write(site.pairs[0], version=0)
    with server:
        yield site


def ask(connection: http.client.HTTPConnection) -> bytes:
    connection.request("GET", "/health/live")
    return connection.getresponse().read()


@contextmanager
def visitors(server: TlsServer, count: int) -> Iterator[Callable[[], tuple[int, int]]]:
    """Clients that connect, ask and leave, all the time. Yields how many were served, and how many connections were
    closed in their handshake, which a client tries once more; another failure is raised at the end."""
    stop = threading.Event()
    served = [0] * count
    again = [0] * count
    failures: list[BaseException] = []

    def visit(number: int) -> None:
        while not stop.is_set():
            connection = server.connection()
            try:
                assert ask(connection) == b"live\n"
                served[number] += 1
            except (OSError, http.client.HTTPException, AssertionError) as error:
                again[number] += 1
                if again[number] > 1 or isinstance(error, AssertionError):
                    failures.append(error)
                    return
            finally:
                connection.close()

    threads = [threading.Thread(target=visit, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield lambda: (sum(served), sum(again))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []


def test_a_certificate_is_renewed_and_no_request_is_cut(site: Site) -> None:
    server = site.server
    body = Random(7).randbytes(16 * MIB)
    host = f"https://localhost:{server.address[1]}"

    def boto(pair: Pair) -> object:
        (site.folder / "ca.pem").write_bytes(pair.certificate)
        return boto3.client(
            "s3",
            endpoint_url=host,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            region_name="us-east-1",
            verify=str(site.folder / "ca.pem"),
            config=Config(retries={"total_max_attempts": 1}, proxies={}),
        )

    s3 = boto(site.pairs[0])
    s3.create_bucket(Bucket="bucket")  # type: ignore[attr-defined]
    s3.put_object(Bucket="bucket", Key="down", Body=body)  # type: ignore[attr-defined]
    before = {process.pid for process in server.processes()}

    idle, down, up = server.connection(), server.connection(), server.connection()
    assert ask(idle) == b"live\n"
    down.request("GET", "/bucket/down", headers=server.signed("GET", "/bucket/down", "UNSIGNED-PAYLOAD"))
    answer = down.getresponse()
    first = answer.read(MIB)
    up.putrequest("PUT", "/bucket/up", skip_host=True)
    digest = sha256(body).hexdigest()
    for name, value in server.signed("PUT", "/bucket/up", digest, **{"content-length": str(len(body))}).items():
        up.putheader(name, value)
    up.endheaders(body[: 5 * MIB])

    pair = Pair.make("localhost")
    with visitors(server, 2) as served:
        site.write(pair, version=1)
        seconds = site.wait_served(pair)
        seen, again = served()
    print(f"renewed after {seconds:.1f} s; {seen} other connections meanwhile, {again} tried again")
    assert seen > 0

    # What was begun under the old certificate ends under it, and then the old processes do.
    old = before - {process.pid for process in server.processes()}
    assert first + answer.read() == body
    up.send(body[5 * MIB :])
    assert up.getresponse().status == 200
    up.close()
    down.close()
    s3 = boto(pair)
    assert s3.get_object(Bucket="bucket", Key="up")["Body"].read() == body  # type: ignore[attr-defined]
    deadline = time.monotonic() + 30
    while len(server.processes()) > len(before):
        assert time.monotonic() < deadline, server.processes()
        time.sleep(0.1)
    with pytest.raises((OSError, http.client.HTTPException)):  # a client with nothing under way connects anew
        ask(idle)
    assert not old & {process.pid for process in server.processes()}
    assert len(before & {process.pid for process in server.processes()}) == 2  # the supervisor and upkeep
    assert server.stop() == 0


def test_a_pair_that_does_not_fit_is_not_served(site: Site) -> None:
    server = site.server
    wrong = Pair(Pair.make("localhost").certificate, Pair.make("localhost").key)
    site.write(wrong, version=1)
    os.kill(server.supervisor(), signal.SIGHUP)
    deadline = time.monotonic() + 20
    while "cannot be served" not in server.log.read_text():
        assert time.monotonic() < deadline, server.log_tail()
        time.sleep(0.1)
    assert server.served() == site.pairs[0].certificate
    right = Pair.make("localhost")
    site.write(right, version=2)
    site.wait_served(right)
    assert server.log.read_text().count("cannot be served") == 1


def test_the_command_line_trusts_who_it_is_told_to(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small objects too, which go past botocore and its ways with certificates."""
    files = {f"{number}.txt": bytes([number]) for number in range(5)}
    for name, body in files.items():
        (tmp_path / "here" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "here" / name).write_bytes(body)
    answered: list[bool] = []
    ask_quickly = Lane.ask

    def ask(*arguments: Any) -> dict[str, Any] | None:
        answer = ask_quickly(*arguments)
        answered.append(answer is not None)
        return answer

    monkeypatch.setattr(Lane, "ask", ask)
    client = Client(site.server, tmp_path)
    trusting = {
        "AWS_ENDPOINT_URL": f"https://localhost:{site.server.address[1]}", "AWS_CA_BUNDLE": str(tmp_path / "cert.pem"),
    }  # fmt: skip
    client.run("bucket", "create", "photos", **trusting).well()
    client.run("mirror", tmp_path / "here", "s3://photos", **trusting).well()
    client.run("mirror", "s3://photos", tmp_path / "there", **trusting).well()
    assert {path.name: path.read_bytes() for path in (tmp_path / "there").iterdir()} == files
    assert answered == [True] * 2 * len(files)
    said = client.run("ls", AWS_ENDPOINT_URL=trusting["AWS_ENDPOINT_URL"])
    assert said.status == 1
    assert "its certificate is not trusted" in said.errors
