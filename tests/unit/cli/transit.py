"""A transit engine as Vault and OpenBao document it, small: over HTTP, with one key, a token, and their errors."""

import base64
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

TOKEN = "hvs.a-token-of-the-tests"


class Transit(ThreadingHTTPServer):
    """The key `holdfast` of the engine mounted at `transit`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.key = AESGCM(os.urandom(32))
        self.is_sealed = False
        self.answer: tuple[int, bytes] | None = None
        """Given to whatever is asked, instead of what is right."""
        self.asked: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1/transit/keys/holdfast"

    def reply(self, path: str, token: str | None, body: Any) -> tuple[int, Any]:
        if self.is_sealed:
            return 503, {"errors": ["Vault is sealed"]}
        if token != TOKEN:
            return 403, {"errors": ["permission denied"]}
        if path == "/v1/transit/encrypt/holdfast":
            nonce = os.urandom(12)
            sealed = nonce + self.key.encrypt(nonce, base64.b64decode(body["plaintext"]), None)
            return 200, {"data": {"ciphertext": "vault:v1:" + base64.b64encode(sealed).decode(), "key_version": 1}}
        if path == "/v1/transit/decrypt/holdfast":
            sealed = base64.b64decode(body["ciphertext"].removeprefix("vault:v1:"))
            try:
                plain = self.key.decrypt(sealed[:12], sealed[12:], None)
            except InvalidTag:
                return 400, {"errors": ["cipher: message authentication failed"]}
            return 200, {"data": {"plaintext": base64.b64encode(plain).decode()}}
        return 404, {"errors": [f"no handler for route {path!r}"]}


class _Handler(BaseHTTPRequestHandler):
    server: Transit

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(self.path)
        if self.server.answer is not None:
            status, answer = self.server.answer
        else:
            status, document = self.server.reply(self.path, self.headers["X-Vault-Token"], body)
            answer = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        if 300 <= status < 400:
            self.send_header("Location", "/elsewhere")
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *arguments: object) -> None:
        """Quiet."""


@contextmanager
def transit() -> Iterator[Transit]:
    with Transit() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
