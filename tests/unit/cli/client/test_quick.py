"""Small requests past botocore: signed right, and given up for it whenever something is out of the ordinary."""

import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from botocore.credentials import ReadOnlyCredentials

from holdfast.cli.client.quick import SMALL_MAX_BYTES, Endpoint, Lane
from holdfast.testing.signing import Signer

NOW = datetime(2026, 11, 21, 11, 30, tzinfo=UTC)
DATE = "20261121T113000Z"


@dataclass
class Server:
    """An endpoint that answers as `answer` says: status, headers, body. A status of 0 ends the connection."""

    answer: Callable[[str], tuple[int, dict[str, str], bytes]]
    seen: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    port: int = 0
    ends_after_answer: bool = False


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server(lambda path: (200, {"ETag": '"e"'}, b""))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = self.rfile.read(int(headers.get("content-length", "0")))
            server.seen.append((self.command, self.path, headers, body))
            status, answered, data = server.answer(self.path)
            if not status:
                self.close_connection = True
                return
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **answered}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)
            # Without a header that says so.
            self.close_connection = self.close_connection or server.ends_after_answer

        do_GET = do_PUT = _serve

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        http.handle_error = lambda request, client_address: None  # type: ignore[method-assign]  # clients hang up here
        server.port = http.server_address[1]
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        yield server
        http.shutdown()
        thread.join()


def lane(server: Server, *, token: str | None = None, path: str = "/bucket/k") -> Lane:
    link = f"http://127.0.0.1:{server.port}{path}?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=x"
    credentials = ReadOnlyCredentials("AKIDEXAMPLE", "secret", token)
    return Lane(
        Endpoint(lambda bucket: link, lambda: credentials, "eu-west-3", lambda: NOW, ssl.SSLContext, "holdfast/1", 5)
    )


def test_a_put_is_signed_as_s3_wants_it(server: Server) -> None:
    given = {"ChecksumCRC64NVME": "AAAAAAAAAAA=", "ContentType": "text/plain", "IfNoneMatch": "*"}
    answer = lane(server, token="session").ask("put_object", "bucket", "a b/ä~+&=.txt", {"Body": b"abc", **given})
    assert answer is not None
    assert answer["ETag"] == '"e"'
    [(method, path, headers, body)] = server.seen
    assert (method, path, body) == ("PUT", "/bucket/a%20b/%C3%A4~%2B%26%3D.txt", b"abc")
    sent = {
        "host": f"127.0.0.1:{server.port}", "content-type": "text/plain", "if-none-match": "*",
        "x-amz-checksum-crc64nvme": "AAAAAAAAAAA=", "x-amz-security-token": "session",
    }  # fmt: skip
    expected = Signer("AKIDEXAMPLE", "secret", "eu-west-3").sign(
        method, path, (), sent, sha256(b"abc").hexdigest(), DATE
    )
    assert expected.items() <= headers.items()


def test_a_get_tells_what_botocore_tells(server: Server) -> None:
    server.answer = lambda path: (
        200,
        {"ETag": '"e"', "x-amz-checksum-crc32": "AAAAAA==", "Last-Modified": "Sat, 21 Nov 2026 11:00:00 GMT"},
        b"data",
    )
    answer = lane(server).ask("get_object", "bucket", "k", {"ChecksumMode": "ENABLED"})
    assert answer is not None
    assert answer.pop("Body").read() == b"data"
    assert answer == {
        "ETag": '"e"', "ChecksumCRC32": "AAAAAA==", "ContentLength": 4,
        "LastModified": datetime(2026, 11, 21, 11, tzinfo=UTC),
    }  # fmt: skip
    assert server.seen[0][2]["x-amz-checksum-mode"] == "ENABLED"


@pytest.mark.parametrize(
    "parameters", [{"VersionId": "x"}, {"Metadata": {"a": "b"}}, {"ContentType": "text/ü\n"}, {"ContentType": "\u2014"}]
)
def test_what_is_out_of_the_ordinary_is_left_to_botocore(server: Server, parameters: dict[str, Any]) -> None:
    assert lane(server).ask("put_object", "bucket", "k", {"Body": b"", **parameters}) is None
    assert not server.seen


def test_a_key_that_is_no_text_and_an_address_that_is_no_plain_one(server: Server) -> None:
    assert lane(server).ask("get_object", "bucket", "a\udcff", {}) is None
    assert lane(server, path="/bucket/other").ask("get_object", "bucket", "k", {}) is None
    assert not server.seen


@pytest.mark.parametrize("status", [0, 206, 301, 403, 404, 412, 503])
def test_refusals_in_turn_leave_a_bucket_to_botocore(server: Server, status: int) -> None:
    tried = lane(server)
    assert tried.ask("get_object", "bucket", "k", {}) is not None
    served, server.answer = server.answer, lambda path: (status, {}, b"why")
    assert [tried.ask("get_object", "bucket", "k", {}) for _ in range(2)] == [None, None]
    server.answer = served
    assert tried.ask("get_object", "bucket", "k", {}) is not None
    server.answer = lambda path: (status, {}, b"why")
    assert [tried.ask("get_object", "bucket", "k", {}) for _ in range(3)] == [None] * 3
    asked = len(server.seen)
    server.answer = served
    assert [tried.ask("get_object", "bucket", "k", {}) for _ in range(3)] == [None] * 3
    assert len(server.seen) == asked
    assert tried.ask("get_object", "other", "k", {}) is not None


def test_a_connection_that_the_server_let_go_of_is_made_anew(server: Server) -> None:
    """Asked as often as refusals would be too many."""
    tried = lane(server)
    server.ends_after_answer = True
    assert None not in [tried.ask("get_object", "bucket", "k", {}) for _ in range(6)]
    assert len(server.seen) == 6


def test_what_grew_large_is_left_to_botocore(server: Server) -> None:
    server.answer = lambda path: (200, {"ETag": '"e"'}, bytes(2 * SMALL_MAX_BYTES + 1))
    assert lane(server).ask("get_object", "bucket", "k", {}) is None


def test_each_thread_has_a_connection(server: Server) -> None:
    shared = lane(server)
    answers: list[Any] = []

    def ask() -> None:
        answers.extend(shared.ask("get_object", "bucket", "k", {}) for _ in range(20))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert None not in answers
    assert len(answers) == 80
