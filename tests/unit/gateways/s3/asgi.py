"""An ASGI server in a function: drives the gateway with messages that a test makes up."""

import asyncio
from collections.abc import AsyncIterator, Mapping, MutableMapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any
from urllib.parse import quote

from holdfast.core.errors import HoldfastError
from holdfast.gateways.s3 import Application, Services, Settings, create_app
from holdfast.gateways.s3.access_log import AccessLog
from holdfast.testing.clock import FakeClock, SeededRandomness
from tests.unit.gateways.s3.signing import SIGNER, ExampleKey
from tests.unit.objects.world import World


@dataclass
class Answer:
    """What the application sent."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    whole: bool = False


class Driver:
    """The gateway over a store in memory, with a clock that stands still and a bucket named "bucket"."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.clock = FakeClock()
        self.lines: list[bytes] = []
        self.credentials = ExampleKey()
        self.not_ready: HoldfastError | None = None
        self.app: Application = create_app(
            self._open,
            clock=self.clock,
            randomness=SeededRandomness(1),
            settings=settings,
            access_log=AccessLog(self.lines.append),
        )

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[Services]:
        world = await World.open()
        self.store = world.store
        yield Services(self.store, self.credentials, self._ready)
        await world.close()

    async def keys(self) -> list[str]:
        """What the bucket holds."""
        return [info.key for info in (await self.store.list_objects("bucket")).objects]

    async def _ready(self) -> None:
        if self.not_ready is not None:
            raise self.not_ready

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Driver"]:
        """Between lifespan start-up and shut-down."""
        # Start-up and shut-down are the two messages; what is between happens while the second is awaited.

        stop = asyncio.Event()
        started = asyncio.Event()
        first = True

        async def receive() -> MutableMapping[str, Any]:
            nonlocal first
            if first:
                first = False
                return {"type": "lifespan.startup"}
            await stop.wait()
            return {"type": "lifespan.shutdown"}

        async def send(message: MutableMapping[str, Any]) -> None:
            started.set()

        task: asyncio.Task[None] = asyncio.create_task(self.app({"type": "lifespan"}, receive, send))  # type: ignore[arg-type]
        await started.wait()
        try:
            yield self
        finally:
            stop.set()
            await task

    def date(self) -> str:
        """The clock's time as a request carries it."""
        return f"{datetime.fromtimestamp(self.clock.now_ns() / 1e9, UTC):%Y%m%dT%H%M%SZ}"

    def sign(
        self, method: str, path: str, query: Sequence[tuple[str, str]], headers: Mapping[str, str], payload: str
    ) -> dict[str, str]:
        return SIGNER.sign(method, path, query, {"host": "localhost", **headers}, payload, self.date())

    async def request(
        self,
        method: str,
        path: str,
        query: Sequence[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> Answer:
        """A signed request whose body comes in one message."""
        given = dict(headers or {})
        if body or method in ("PUT", "POST"):
            given["content-length"] = str(len(body))
        signed = self.sign(method, quote(path), query, given, sha256(body).hexdigest())
        return await self.send(method, quote(path), query, signed, [{"type": "http.request", "body": body}])

    async def send(
        self,
        method: str,
        path: str,
        query: Sequence[tuple[str, str]],
        headers: Mapping[str, str],
        messages: Sequence[Mapping[str, Any]],
        *,
        client_leaves_after: int | None = None,
        client_stalls_after: int | None = None,
    ) -> Answer:
        """Whatever head and messages; behind the last message the client is gone."""
        answer = Answer()
        left = list(messages)
        sent = 0
        leaving = asyncio.Event()

        async def receive() -> MutableMapping[str, Any]:

            if left:
                return dict(left.pop(0))
            if client_leaves_after is not None:
                await leaving.wait()
            elif not messages or messages[-1]["type"] == "http.request":
                await asyncio.Event().wait()
            return {"type": "http.disconnect"}

        async def send(message: MutableMapping[str, Any]) -> None:

            nonlocal sent
            await asyncio.sleep(0)
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.headers = {name.decode(): value.decode("latin-1") for name, value in message["headers"]}
            else:
                sent += 1
                if sent == client_leaves_after:
                    leaving.set()
                if sent == client_stalls_after:
                    await asyncio.Event().wait()
                answer.body += message.get("body", b"")
                answer.whole = not message.get("more_body", False)

        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": "&".join(
                f"{quote(name, safe='')}={quote(value, safe='', errors='surrogateescape')}" for name, value in query
            ).encode(),
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers.items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 9000),
        }
        await self.app(scope, receive, send)
        return answer
