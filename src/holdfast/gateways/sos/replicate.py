"""Replication: every object on at least N servers of its group, each copy compared with its id before it counts.

    list every server of a group  ->  ids in order, each with the servers that have it  ->  copy what is on too few

Rules. Of an object that is on too few servers, every copy is read and compared with its id, and only then put
elsewhere: an error page or a damaged copy is never spread, nor counted; one that is wrong is replaced by a right one.
With `verify` that is done for every object, whatever the lists say. A server that does not answer is left out, of
reading as of writing, until the next run. A run may be cut off anywhere: what was copied is in the lists of the next.

Ids that are no SHA-1 were given by hand, and nothing can be compared with them: they are copied as they are.
"""

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from holdfast.core.clock import Clock
from holdfast.core.errors import AlreadyExists, Corrupt, Full, HoldfastError, NotFound, Unavailable
from holdfast.gateways.sos.blob_client import BlobClient
from holdfast.gateways.sos.chunks import LIST_MAX_BYTES, ChunkList, is_file_id, listed_file
from holdfast.gateways.sos.id_lists import IdLists
from holdfast.gateways.sos.servers import Role, Server, Servers
from holdfast.gateways.sos.spool import Spool

# Objects that are looked at and copied at once: as many as make good batches of small ones, in a megabyte or so.
COPIES_AT_ONCE = 256

# Of those, the ones that are not small: up to a megabyte of each is in memory, from when it is read to when it is put.
LARGE_AT_ONCE = 8

# Objects with nothing to do that are passed over before anything else gets a turn: 5 ms.
PAUSE_OBJECTS = 1000

# How often is said how far it is.
PROGRESS_SECONDS = 10.0

Say = Callable[[str], None]


@dataclass(slots=True)
class Report:
    """What a run came to."""

    objects: int = 0
    copied: int = 0
    copied_bytes: int = 0
    wrong: int = 0
    """Copies that are not what their ids say."""
    lost: list[str] = field(default_factory=list)
    """Ids of which no good copy was found."""
    short: int = 0
    """Objects that are on fewer servers than they should be, because a copy failed."""
    dead: list[str] = field(default_factory=list)

    @property
    def well(self) -> bool:
        return not self.lost and not self.short

    def __str__(self) -> str:
        text = f"{self.objects} objects, {self.copied} copied ({self.copied_bytes} bytes)"
        for count, what in ((self.short, "on too few servers"), (len(self.lost), "without a good copy")):
            if count:
                text += f", {count} {what}"
        return text + (f", {self.wrong} wrong copies" if self.wrong else "")


@dataclass(frozen=True, slots=True)
class Options:
    min_copies: int = 2
    verify: bool = False
    verbose: bool = False


class Replicator:
    """One run over all groups."""

    def __init__(
        self, servers: Servers, connect: Callable[[Server], BlobClient], spool: Path, clock: Clock, say: Say
    ) -> None:
        self._servers = servers
        self._connect = connect
        self._spool = spool
        self._clock = clock
        self._say = say

    async def run(self, options: Options) -> Report:
        """Look at every group. Raises nothing that one server can cause."""
        report = Report()
        for name, members in self._servers.groups().items():
            if options.verbose:
                self._say(f"Syncing group: {name}")
            group = _Group([self._connect(server) for server in members], options, report, self._spool, self._say)
            lists = IdLists(self._spool)
            try:
                await group.take_lists(lists)
                await self._copy(group, lists, report)
            finally:
                lists.close()
        return report

    async def _copy(self, group: "_Group", lists: IdLists, report: Report) -> None:
        """Bring each object to enough servers, some at once."""
        total = max(lists.counts.values(), default=0)
        said = self._clock.monotonic()
        waiting = lists.merged()

        async def work() -> None:
            nonlocal said
            for name, listed in waiting:
                if not group.has_enough(listed):
                    await group.see_to(name, listed)
                report.objects += 1
                if not report.objects % PAUSE_OBJECTS:
                    await asyncio.sleep(0)
                if self._clock.monotonic() - said > PROGRESS_SECONDS:
                    said = self._clock.monotonic()
                    self._say(f"{report}, of at least {total}")

        workers = [asyncio.create_task(work()) for _ in range(COPIES_AT_ONCE)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)


class _Group:
    """The servers of one group, as far as they answer."""

    def __init__(self, clients: Sequence[BlobClient], options: Options, report: Report, spool: Path, say: Say) -> None:
        self._clients = {client.server.url: client for client in clients}
        self._options = options
        self._report = report
        self._spool = spool
        self._say = say
        self._refusing: set[str] = set()
        """Servers that took no more."""
        self._large = asyncio.Semaphore(LARGE_AT_ONCE)

    async def take_lists(self, lists: IdLists) -> None:
        """Ask every member for its list; who does not give one is left out."""
        for client in list(self._clients.values()):
            url = client.server.url
            if self._options.verbose:
                self._say(f"\tGroup member: {url}")
            try:
                await client.alive()
                await lists.take(url, client.ids())
            except HoldfastError as error:
                self._leave_out(url, error)
        copies, alive = self._options.min_copies, len(self._clients)
        if copies > alive:
            self._say(
                "You've asked for an impossible number of replicated-copies:\n\n"
                f"* You have {alive} blob-servers available.\n* You've asked for {copies}."
            )

    def _leave_out(self, url: str, error: HoldfastError) -> None:
        if self._clients.pop(url, None) is not None:
            self._report.dead.append(url)
            self._say(f"{url} is left out: {error}")

    def has_enough(self, listed: Sequence[str]) -> bool:
        """Whether nothing is to be done, as far as the lists say."""
        return not self._options.verify and len(listed) >= min(self._options.min_copies, len(self._clients))

    async def see_to(self, id: str, listed: Sequence[str]) -> None:
        """Bring an object to enough servers."""
        async with AsyncExitStack() as slot:
            copies = _Copies(slot)
            try:
                for url in listed:
                    if url in self._clients:
                        await self._look_at(id, url, copies)
                if copies.good:
                    await self._spread(id, copies)
                elif copies.bad:
                    self._report.lost.append(id)
                    self._say(f"no good copy of {id} was found on {', '.join(copies.bad)}")
            finally:
                if copies.spool is not None:
                    copies.spool.close()

    async def _look_at(self, id: str, url: str, copies: "_Copies") -> None:
        """Read a copy and compare it with its id. The first good one is kept."""
        spool = Spool(self._spool)
        try:
            headers = await self._fetch(id, self._clients[url], spool, copies)
            _check(id, spool)
        except NotFound:
            pass  # deleted since it was listed
        except Corrupt as error:
            self._report.wrong += 1
            self._say(f"the copy on {url} is wrong: {error}")
            copies.bad.append(url)
        except Full:
            raise  # here, not there
        except Unavailable as error:
            self._leave_out(url, error)
        else:
            copies.good.append(url)
            if copies.spool is None:
                copies.spool, copies.headers = spool, headers
        finally:
            if copies.spool is not spool:
                spool.close()

    async def _fetch(self, id: str, client: BlobClient, spool: Spool, copies: "_Copies") -> Mapping[str, str]:
        """A copy's bytes into a spool; its headers."""
        small = await client.get_small(id)
        if small is not None:
            headers, data = small
            await spool.write(data)
            await spool.finish()
            return headers
        if not copies.is_large:
            await copies.slot.enter_async_context(self._large)
            copies.is_large = True
        async with client.open(id) as found:
            async for piece in found.pieces:
                await spool.write(piece)
            await spool.finish()
            return found.headers

    async def _spread(self, id: str, copies: "_Copies") -> None:
        """Put the copy over those that are wrong, and then where it is missing, until there are enough."""
        replaced = [url for url in copies.bad if await self._replace(id, copies, self._clients.get(url))]
        source = copies.good[0]
        there = len(copies.good) + len(replaced)
        for client in self._targets(id, {*copies.good, *copies.bad}):
            if there >= self._options.min_copies:
                return
            if self._options.verbose:
                self._say(f"\t\tMirroring {id} from {source} to {client.server.url}")
            there += await self._put(id, copies, client)
        if there < min(self._options.min_copies, len(self._clients)):
            self._report.short += 1

    def _targets(self, id: str, holders: set[str]) -> list[BlobClient]:
        """Servers to put a copy on: preferred ones first, else spread by the id."""
        clients = [
            client
            for url, client in self._clients.items()
            if url not in holders and url not in self._refusing and client.server.writable
        ]
        return sorted(
            clients,
            key=lambda client: (client.server.role is not Role.PREFERRED, _rank(id, client.server.url)),
        )

    async def _put(self, id: str, copies: "_Copies", client: BlobClient) -> bool:
        """Whether the copy is there now."""
        try:
            await self._send(id, copies, client)
        except AlreadyExists as error:
            self._say(str(error))
        except Unavailable as error:
            # Full, or worse: it is not asked again in this run, but still read from.
            self._refusing.add(client.server.url)
            self._say(f"nothing more is put on {client.server.url}: {error}")
        else:
            return True
        return False

    async def _replace(self, id: str, copies: "_Copies", client: BlobClient | None) -> bool:
        """Put the right bytes over wrong ones. Original servers overwrite; ours must be told to delete first."""
        if client is None or not client.server.writable:
            return False
        try:
            try:
                await self._send(id, copies, client)
            except AlreadyExists:
                await client.delete(id)
                await self._send(id, copies, client)
        except (AlreadyExists, Unavailable) as error:
            self._say(f"the wrong copy on {client.server.url} could not be replaced: {error}")
            return False
        self._say(f"the wrong copy of {id} on {client.server.url} was replaced")
        return True

    async def _send(self, id: str, copies: "_Copies", client: BlobClient) -> None:
        spool = copies.spool
        assert spool is not None, "only a good copy is sent"
        whole = spool.whole()
        await client.put(id, spool.size, spool.read if whole is None else whole, copies.headers)
        self._report.copied += 1
        self._report.copied_bytes += spool.size


@dataclass(slots=True)
class _Copies:
    """Where an object was found, right and wrong, and the bytes of the first right one."""

    slot: AsyncExitStack
    """Holds a place among the large ones, once the object was found to be one."""
    is_large: bool = False
    spool: Spool | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    good: list[str] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)


def _check(id: str, spool: Spool) -> None:
    """Raises Corrupt unless the spool holds the bytes of that id, as far as an id says."""
    file_id = listed_file(id)
    if file_id is not None:
        if spool.size > LIST_MAX_BYTES:
            raise Corrupt(f"{id} is no chunk list")
        ChunkList.decode(spool.whole() or b"", file_id)
    elif is_file_id(id) and spool.sha1 != id:
        raise Corrupt(f"{id}: its bytes have another SHA-1")


def _rank(id: str, url: str) -> bytes:
    return hashlib.sha256(f"{id} {url}".encode()).digest()
