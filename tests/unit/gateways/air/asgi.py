"""An ASGI server in a function: drives air with messages that a test makes up."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, MutableMapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from holdfast.core.errors import HoldfastError
from holdfast.gateways.air import Air, Services
from holdfast.testing.clock import FakeClock
from tests.unit.objects.world import World

BOUNDARY = "a-boundary"
LOCAL = {"host": "localhost:9002"}


@dataclass
class Answer:
    """What the application sent."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    whole: bool = False

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def form(data: bytes, content_type: str = "text/plain", name: str = "file", boundary: str = BOUNDARY) -> bytes:
    """A form as curl writes it, of one file."""
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="x"\r\n'
    if content_type:
        head += f"Content-Type: {content_type}\r\n"
    return head.encode() + b"\r\n" + data + f"\r\n--{boundary}--\r\n".encode()


class Driver:
    """Air over a store in memory, with a clock that a test moves."""

    def __init__(self, world: World, token: str | None) -> None:
        self.world = world
        self.store = world.store
        self.clock = FakeClock()
        self.not_ready: HoldfastError | None = None
        self.air = Air(Services(world.store, self.clock, self._ready), token)

    @classmethod
    @asynccontextmanager
    async def running(cls, token: str | None = None) -> AsyncIterator["Driver"]:
        world = await World.open()
        yield cls(world, token)
        await world.close()

    async def _ready(self) -> None:
        if self.not_ready is not None:
            raise self.not_ready

    async def put(self, path: str, data: bytes, content_type: str = "text/plain") -> Answer:
        body = form(data, content_type)
        headers = {"content-type": f"multipart/form-data; boundary={BOUNDARY}", "content-length": str(len(body))}
        messages = [{"type": "http.request", "body": body}]
        return await self.send("POST", f"/put/{path}", headers, messages)

    async def get(self, path: str, headers: Mapping[str, str] | None = None, query: str = "") -> Answer:
        return await self.send("GET", f"/get/{path}", headers or {}, [{"type": "http.request"}], query=query)

    async def call(self, method: str, path: str, query: str = "", headers: Mapping[str, str] | None = None) -> Answer:
        return await self.send(method, path, headers or {}, [{"type": "http.request"}], query=query)

    async def listed(self, bucket: str, query: str = "") -> list[tuple[str, str, int, str]]:
        """What /list tells."""
        answer = await self.call("GET", f"/list/{bucket}", query)
        assert answer.status == 200
        assert answer.json["message"] == "success"
        return [(e["filename"], e["version"], e["size"], e["content_type"]) for e in answer.json["data"]]

    async def send(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        messages: Sequence[Mapping[str, Any]],
        *,
        query: str = "",
        client: str = "127.0.0.1",
        stay_after: int | None = None,
    ) -> Answer:
        """Whatever head and messages; behind the last the client waits, or leaves after `stay_after` pieces."""
        answer = Answer()
        left = list(messages)
        leaving = asyncio.Event()
        pieces = 0

        async def receive() -> MutableMapping[str, Any]:
            if left:
                return dict(left.pop(0))
            await leaving.wait()
            return {"type": "http.disconnect"}

        async def send(message: MutableMapping[str, Any]) -> None:
            nonlocal pieces
            await asyncio.sleep(0)
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.headers = {name.decode(): value.decode("latin-1") for name, value in message["headers"]}
                return
            pieces += 1
            if pieces == stay_after:
                leaving.set()
            answer.body += message.get("body", b"")
            answer.whole = not message.get("more_body", False)

        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "path": path,
            "raw_path": quote(path, safe="/%").encode(),
            "query_string": query.encode(),
            "headers": [(n.encode(), v.encode("latin-1")) for n, v in {**LOCAL, **headers}.items()],
            "client": (client, 1),
        }
        await self.air(scope, receive, send)
        return answer
