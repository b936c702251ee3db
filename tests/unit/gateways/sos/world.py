"""An API server's parts over blob servers that misbehave, in one process and over real sockets."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from holdfast.core.limits import KIB
from holdfast.gateways.sos.blob_client import BlobClient, open_session
from holdfast.gateways.sos.fetch import Fetcher
from holdfast.gateways.sos.fleet import Fleet
from holdfast.gateways.sos.replicate import Options, Replicator, Report
from holdfast.gateways.sos.servers import Role, Server, Servers
from holdfast.gateways.sos.upload import Uploaded, Uploader
from holdfast.testing.blob_suite import pieces
from holdfast.testing.clock import FakeClock
from holdfast.testing.old_sos import OldServer

CHUNK_BYTES = 256 * KIB
"""In these tests, so that a large file is small."""


def sha1(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


class World:
    """Some blob servers, and one of each part that speaks to them."""

    def __init__(self, old: list[OldServer], session: aiohttp.ClientSession, spool: Path) -> None:
        self.old = old
        self.session = session
        self.spool = spool
        self.clock = FakeClock()
        self.said: list[str] = []
        self.use()

    def use(self, *roles: Role, groups: str = "") -> None:
        """Start anew, with these roles and groups (a letter for each server)."""
        self.servers = Servers(
            tuple(
                Server(
                    server.url,
                    groups[number] if groups else "default",
                    roles[number] if number < len(roles) else Role.PLAIN,
                )
                for number, server in enumerate(self.old)
            )
        )
        self.fleet = Fleet(self.servers, self.client, self.clock)
        self.uploader = Uploader(self.fleet, self.spool, CHUNK_BYTES)
        self.fetcher = Fetcher(self.fleet)

    def client(self, server: Server) -> BlobClient:
        return BlobClient(self.session, server)

    async def upload(self, data: bytes, headers: dict[str, str] | None = None) -> Uploaded:
        return await self.uploader.upload(pieces(data), headers or {})

    async def fetch(self, id: str) -> bytes:
        return (await self.fetch_all(id))[0]

    async def fetch_all(self, id: str) -> tuple[bytes, Any]:
        file = await self.fetcher.open(id)
        async with aclosing(file.pieces) as stream:
            data = b"".join([piece async for piece in stream])
        assert file.size in (None, len(data))
        return data, file.headers

    async def replicate(self, min_copies: int = 2, **options: bool) -> Report:
        replicator = Replicator(self.servers, self.client, self.spool, self.clock, self.said.append)
        return await replicator.run(Options(min_copies, **options))

    def holders(self, id: str) -> list[int]:
        """Which servers have this id."""
        return [number for number, server in enumerate(self.old) if id in server.blobs]


@asynccontextmanager
async def world(spool: Path, count: int) -> AsyncIterator[World]:
    """So many old servers, and what speaks to them."""
    async with AsyncExitStack() as stack:
        old = [await stack.enter_async_context(OldServer().running()) for _ in range(count)]
        session = await stack.enter_async_context(open_session())
        yield World(old, session, spool)
