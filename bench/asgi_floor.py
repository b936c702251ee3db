"""The floor: a bare ASGI application under the same server, which reads the body and answers.

No signature is checked, nothing is hashed, sealed, stored or looked up. What a row reaches here is what Python's HTTP
stack leaves to us at most, so a row's figure divided by this one says how much of it Holdfast gives away.

A path's last segment says how long the object is, as the load generator names its objects: "/bucket/run/4096-17".
"""

import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

PIECE_BYTES = 1 << 20
KEYS_PER_PAGE = 1000

_PIECE = memoryview(bytes(range(256)) * (PIECE_BYTES // 256))
_ETAG = (b"etag", b'"d41d8cd98f00b204e9800998ecf8427e"')
_PAGE = (
    b"<ListBucketResult>"
    + b"".join(
        b"<Contents><Key>run/4096-%06d</Key><LastModified>2026-11-21T00:00:00.000Z</LastModified>"
        b"<ETag>&quot;d41d8cd98f00b204e9800998ecf8427e&quot;</ETag><Size>4096</Size>"
        b"<StorageClass>STANDARD</StorageClass></Contents>" % number
        for number in range(KEYS_PER_PAGE)
    )
    + b"</ListBucketResult>"
)


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """Read the whole body, answer what the load generator expects."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    match scope["method"], scope["query_string"]:
        case "GET" | "HEAD", b"" if scope["path"].count("/") > 2 or scope["path"].startswith("/health"):
            await _object(scope, send)
        case "GET", query if b"list-type" in query:
            await _answer(send, _PAGE)
        case "POST", _:
            await _answer(send, b"<DeleteResult/>")
        case _:
            await _answer(send, b"")


async def _object(scope: Message, send: Send) -> None:
    size = scope["path"].rpartition("/")[2].partition("-")[0]
    length = int(size) if size.isdigit() else 0
    headers = [(b"content-length", b"%d" % length), _ETAG]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if scope["method"] == "HEAD" or not length:
        await send({"type": "http.response.body", "body": b""})
        return
    for start in range(0, length, PIECE_BYTES):
        body = bytes(_PIECE[: min(PIECE_BYTES, length - start)])
        more = start + PIECE_BYTES < length
        await send({"type": "http.response.body", "body": body, "more_body": more})


async def _answer(send: Send, body: bytes) -> None:
    headers = [(b"content-length", b"%d" % len(body)), _ETAG]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def main(arguments: list[str]) -> None:
    """`python -m bench.asgi_floor serve [DIR...] --listen HOST:PORT --workers N`: spelled as the server itself."""
    host, _, port = arguments[arguments.index("--listen") + 1].rpartition(":")
    workers = arguments[arguments.index("--workers") + 1]
    granian = str(Path(sys.executable).with_name("granian"))
    os.execv(
        granian,
        [granian, "--interface", "asgi", "--no-ws", "--loop", "uvloop", "--host", host, "--port", port,
         "--workers", workers, "--no-access-log", "--log-level", "warning", "bench.asgi_floor:app"],
    )  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1:])
