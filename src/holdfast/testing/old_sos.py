"""A blob server as the original sos has it, faults and all, and with more of them on demand.

It keeps blobs in a dict, overwrites what is there, checks nothing, cannot delete, answers a HEAD without a length and
an upload with its fields in another order than ours. `fault` says how it misbehaves at the moment.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum, auto

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

ERROR_PAGE = b"<html><body>502 Bad Gateway</body></html>"
_BODY_MAX_BYTES = 1 << 30


class Fault(Enum):
    """What can be wrong with a server that answers."""

    NONE = auto()
    FULL = auto()
    """Uploads are cut off half-way, kept so, and answered 500: as a full disk does to the original."""
    ERROR_PAGE = auto()
    """Whatever is asked for, it is an error page with status 200: as a proxy in front of a dead server does."""
    LIES = auto()
    """Uploads are answered as they should be, for another id."""
    FORGETS = auto()
    """Uploads are answered rightly, with a wrong size, and not kept."""
    HANGS = auto()
    """Connections are taken, and nothing is answered."""
    BREAKS_OFF = auto()
    """Downloads end in the middle."""
    STALLS = auto()
    """Downloads stop in the middle, without an end."""


class OldServer:
    """The server; `url` says where it listens while it is `running`."""

    def __init__(self) -> None:
        self.blobs: dict[str, tuple[bytes, dict[str, str]]] = {}
        self.fault = Fault.NONE
        self.immutable = False
        """Refuse other bytes under a taken id, and delete when told to, as ours do."""
        self.announces = False
        """Downloads have a Content-Length."""
        self.listed: list[str] = []
        """What else lies in its directory."""
        self.requests: list[str] = []
        self.url = ""
        self._stop = asyncio.Event()

    @asynccontextmanager
    async def running(self, port: int = 0) -> AsyncIterator["OldServer"]:
        app = web.Application(client_max_size=_BODY_MAX_BYTES)
        app.add_routes(
            [
                web.get("/alive", self._alive),
                web.get("/blobs", self._list),
                web.get("/blob/{id}", self._get, allow_head=False),
                web.head("/blob/{id}", self._head),
                web.post("/blob/{id}", self._post),
                web.delete("/blob/{id}", self._delete),
            ]
        )
        app.middlewares.append(self._misbehaving())
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self._stop.clear()
        try:
            yield self
        finally:
            self._stop.set()
            await runner.cleanup()

    def _misbehaving(self) -> Middleware:
        @web.middleware
        async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
            self.requests.append(f"{request.method} {request.path}")
            if self.fault is Fault.HANGS:
                await self._stop.wait()
            if self.fault is Fault.ERROR_PAGE:
                return web.Response(body=ERROR_PAGE, content_type="text/html")
            return await handler(request)

        return middleware

    async def _alive(self, request: web.Request) -> web.Response:
        return web.Response(text="alive")

    async def _list(self, request: web.Request) -> web.Response:
        return web.json_response([*self.blobs, *self.listed])

    async def _head(self, request: web.Request) -> web.Response:
        found = request.match_info["id"] in self.blobs
        return web.Response(status=200 if found else 404, headers={"Connection": "close"})

    async def _get(self, request: web.Request) -> web.StreamResponse:
        if request.match_info["id"] not in self.blobs:
            return web.Response(status=404, text="404 page not found\n")
        data, headers = self.blobs[request.match_info["id"]]
        response = web.StreamResponse(headers=headers)
        if self.announces:
            response.content_length = len(data)
        else:
            response.enable_chunked_encoding()
        await response.prepare(request)
        fault = self.fault
        broken = fault in (Fault.BREAKS_OFF, Fault.STALLS)
        await response.write(data[: len(data) // 2] if broken else data)
        if fault is Fault.BREAKS_OFF:
            assert request.transport is not None
            request.transport.close()
        if fault is Fault.STALLS:
            await self._stop.wait()
        await response.write_eof()
        return response

    async def _post(self, request: web.Request) -> web.Response:
        name, data = request.match_info["id"], await request.read()
        headers = {key: value for key, value in request.headers.items() if key.lower().startswith("x-")}
        if self.immutable and name in self.blobs and self.blobs[name][0] != data:
            return web.Response(status=409, text="other bytes")
        if self.fault is Fault.FULL:
            self.blobs[name] = data[: len(data) // 2], {}
            return web.Response(status=500, text="failed to write to storage\n")
        if self.fault is Fault.LIES:
            return _stored("0" * 40, len(data))
        if self.fault is Fault.FORGETS:
            return _stored(name, len(data) + 1)
        self.blobs[name] = data, headers
        return _stored(name, len(data))

    async def _delete(self, request: web.Request) -> web.Response:
        if not self.immutable:
            return web.Response(status=404, text="404 - content is not hosted here.")
        self.blobs.pop(request.match_info["id"], None)
        return web.Response(text="deleted")


def _stored(name: str, size: int) -> web.Response:
    return web.Response(text=f'{{"id":"{name}","status":"OK","size":{size}}}')
