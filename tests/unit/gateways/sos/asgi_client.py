"""Calls an ASGI application as a server would, without one."""

import asyncio
from collections.abc import AsyncIterator, Mapping, MutableMapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from holdfast.gateways.sos.asgi import Application


@dataclass
class Reply:
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    ended: bool = False


async def call(
    app: Application[Any],
    method: str,
    path: str,
    body: bytes | Sequence[bytes] = b"",
    headers: Mapping[str, str] | None = None,
    *,
    gone: bool = False,
) -> Reply:
    """One request. With `gone` the client leaves in the middle of its body."""
    pieces = [body] if isinstance(body, bytes) else list(body)
    announced = {} if "content-length" in (headers or {}) else {"content-length": str(sum(map(len, pieces)))}
    messages = [
        {"type": "http.request", "body": piece, "more_body": gone or number < len(pieces) - 1}
        for number, piece in enumerate(pieces)
    ]
    reply = Reply()

    async def receive() -> MutableMapping[str, Any]:
        if not messages and not gone:
            await asyncio.Event().wait()
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            assert not reply.status
            reply.status = message["status"]
            reply.headers = {name.decode(): value.decode("latin-1") for name, value in message["headers"]}
            return
        reply.body += message["body"]
        reply.ended = not message.get("more_body", False)

    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in {**announced, **(headers or {})}.items()]
    await app({"type": "http", "http_version": "1.1", "method": method, "path": path, "headers": raw}, receive, send)
    return reply


@asynccontextmanager
async def started(app: Application[Any]) -> AsyncIterator[None]:
    """The application between its start-up and its shut-down."""
    phases = iter(("startup", "shutdown"))
    sent: list[str] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": f"lifespan.{next(phases)}"}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message["type"])

    # The application waits for the shut-down inside: what is opened is opened here instead.
    manager = app._open()
    app._opened = await manager.__aenter__()
    try:
        yield
    finally:
        app._opened = None
        await manager.__aexit__(None, None, None)
    await app({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
