"""One blob server as seen from afar, ours or an original one: nothing that it says is believed unless it was checked.

Rules. An upload succeeded only if the answer has status 200 and names the right id and size. Whoever falls silent is
given up. An error is Unavailable ("this server cannot help now") or NotFound, never a guess; whether the bytes are the
right ones is for the caller to see, who knows what they should be.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TypeVar

import aiohttp
import msgspec

from holdfast.core.errors import (
    AlreadyExists,
    HoldfastError,
    InvalidRequest,
    NotFound,
    RemoteProtocolError,
    Timeout,
    Unavailable,
)
from holdfast.core.ids import Buffer
from holdfast.core.limits import KIB
from holdfast.gateways.sos import batch
from holdfast.gateways.sos.blobs import HEADERS_MAX_BYTES, SmallBlob, is_id
from holdfast.gateways.sos.gather import Gatherer
from holdfast.gateways.sos.servers import Server

# A server on the same network answers a connection in a millisecond.
CONNECT_MAX_SECONDS = 3.0

# A server that neither takes nor gives a byte for so long is taken for dead, and the next one is asked.
SILENCE_MAX_SECONDS = 10.0

# Behind its last byte an upload has to be made durable; a busy server may need longer for that. A batch, which is a
# megabyte or so, has this long in all.
ANSWER_MAX_SECONDS = 60.0

# Connections to all blob servers together, for each worker.
CONNECTIONS_MAX_COUNT = 256

READ_BYTES = 256 * KIB

# An answer to an upload is about 100 bytes. A longer one is a page of something else.
_ANSWER_MAX_BYTES = 4 * KIB

# What may stand in a list of ids without being a whole string of it. Ids are 40 bytes or so.
ITEM_MAX_BYTES = 64 * KIB

_ITEM = re.compile(rb'\s*([\[,])\s*("(?:[^"\\]|\\.)*")', re.DOTALL)
"""A string of a JSON array, and what separates it from the one before."""

T = TypeVar("T")
MakeBody = Callable[[], AsyncIterator[Buffer]]


@dataclass(frozen=True, slots=True)
class Found:
    """A blob that a server is about to send. As yet nothing says that it is the right one."""

    server: Server
    headers: Mapping[str, str]
    """The `X-*` headers, names in lower case."""
    size: int | None
    """As the server said; None when it did not."""
    pieces: AsyncIterator[bytes]
    """Raises Unavailable when the server breaks off or falls silent."""


def open_session() -> aiohttp.ClientSession:
    """What every client of a process shares. Nothing is decompressed: bytes are bytes."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=CONNECTIONS_MAX_COUNT),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_MAX_SECONDS),
        headers={"Accept-Encoding": "identity"},
        auto_decompress=False,
        max_line_size=HEADERS_MAX_BYTES * 2,
        max_field_size=HEADERS_MAX_BYTES * 2,
        read_bufsize=READ_BYTES,
    )


class BlobClient:
    """Requests to one blob server."""

    def __init__(self, session: aiohttp.ClientSession, server: Server, secret: str = "") -> None:
        self.server = server
        self._session = session
        self._takes_batches = True
        self._puts: Gatherer[SmallBlob, None] = Gatherer(
            self._put_batch, batch.weight, weight_max=batch.BATCH_MAX_BYTES, count_max=batch.BATCH_MAX_COUNT
        )
        self._gets: Gatherer[str, batch.Got] = Gatherer(
            self._get_batch, len, weight_max=batch.BATCH_MAX_BYTES, count_max=batch.BATCH_MAX_COUNT
        )
        self._headers = {"Authorization": f"Bearer {secret}"} if secret else {}

    async def alive(self) -> None:
        """Raises Unavailable."""
        async with self._request("GET", "/alive") as response:
            await self._read_answer(response)

    async def ids(self) -> AsyncIterator[Sequence[str]]:
        """Every id that the server lists, in its order. What cannot be an id is passed over: original servers list
        whatever files lie in their directory. Raises Unavailable, also when the list breaks off."""
        async with self._request("GET", "/blobs") as response:
            if response.status != 200:
                raise Unavailable(f"{self.server.url} answered {response.status} to a request for its list")
            reading = _IdList()
            async for piece in self._pieces(response):
                yield reading.feed(piece)
            reading.finish()

    async def info(self, id: str) -> tuple[int | None, Mapping[str, str]]:
        """Size, if the server says it, and `X-*` headers. Raises NotFound, Unavailable."""
        async with self._request("HEAD", f"/blob/{id}") as response:
            self._check_found(response.status, id)
            # An original server's HEAD has no length.
            size = response.headers.get("Content-Length")
            return int(size) if size and size.isdigit() and int(size) else None, extra_headers(response)

    @asynccontextmanager
    async def open(self, id: str) -> AsyncIterator[Found]:
        """A blob's bytes, for as long as the context lasts. Raises NotFound, Unavailable."""
        async with self._request("GET", f"/blob/{id}") as response:
            self._check_found(response.status, id)
            yield Found(self.server, extra_headers(response), response.content_length, self._pieces(response))

    async def get_small(self, id: str) -> tuple[Mapping[str, str], bytes] | None:
        """Headers and bytes of a blob, in one request with those that others ask for meanwhile; None when it must be
        opened. Raises NotFound, Unavailable."""
        if not self._takes_batches:
            return None
        got = await self._gets.ask(id)
        if got.status == 200:
            return got.headers, got.data
        if got.status == batch.ALONE:
            return None
        self._check_found(got.status, id)
        raise AssertionError("unreachable: every other status is an error")

    async def put(self, id: str, size: int, body: bytes | MakeBody, headers: Mapping[str, str]) -> None:
        """Store a blob; small ones that are put meanwhile go with the next request. Raises AlreadyExists when the id
        holds other bytes there, Unavailable for everything else that is not a success."""
        if self._takes_batches and isinstance(body, bytes) and len(body) <= batch.SMALL_MAX_BYTES:
            return await self._puts.ask(SmallBlob(id, dict(headers), body))
        return await self._put_alone(id, size, body, headers)

    async def _put_alone(self, id: str, size: int, body: bytes | MakeBody, headers: Mapping[str, str]) -> None:
        progress = _Progress()
        whole = isinstance(body, bytes)
        data = body if isinstance(body, bytes) else progress.watch(body())
        patience = SILENCE_MAX_SECONDS if whole else ANSWER_MAX_SECONDS
        sent = {**_as_sent(headers), "Content-Length": str(size), "Content-Type": "application/octet-stream"}
        async with progress.limit(patience), self._request("POST", f"/blob/{id}", sent, data, patience) as response:
            answer = await self._read_answer(response)
            if response.status == 409:
                raise AlreadyExists(f"{self.server.url} holds other bytes under {id}")
            if response.status != 200 or not _names_blob(answer, id, size):
                shown = answer[:100].decode("ascii", "replace")
                raise Unavailable(f"{self.server.url} did not store {id}: {response.status} {shown}")

    async def _put_batch(self, blobs: Sequence[SmallBlob]) -> Sequence[HoldfastError | None]:
        if len(blobs) > 1:
            answer = await self._ask_batch(batch.PUT_PATH, blobs, lambda data: _puts_of(data, blobs))
            if answer is not None:
                return [self._outcome(blob, put) for blob, put in zip(blobs, answer, strict=True)]
        return await asyncio.gather(*map(self._put_one, blobs))

    async def _put_one(self, blob: SmallBlob) -> HoldfastError | None:
        try:
            await self._put_alone(blob.id, len(blob.data), blob.data, blob.headers)
        except HoldfastError as error:
            return error
        return None

    def _outcome(self, blob: SmallBlob, put: batch.Put) -> HoldfastError | None:
        if put.status == 409:
            return AlreadyExists(f"{self.server.url} holds other bytes under {blob.id}")
        if put.status != 200 or put.size != len(blob.data):
            return Unavailable(f"{self.server.url} did not store {blob.id}: {put.status} {put.message[:100]}")
        return None

    async def _get_batch(self, ids: Sequence[str]) -> Sequence[batch.Got]:
        answer = await self._ask_batch(batch.GET_PATH, ids, lambda data: batch.decode_gots(data, ids))
        return [batch.Got(name, batch.ALONE) for name in ids] if answer is None else answer

    async def _ask_batch(
        self, path: str, items: Sequence[object], decode: Callable[[bytes], list[T]]
    ) -> list[T] | None:
        """The answer to a batch; None when this server knows none, as original ones do."""
        data = batch.encode(items)
        sent = {"Content-Type": batch.CONTENT_TYPE}
        async with _Progress().limit(ANSWER_MAX_SECONDS), self._request("POST", path, sent, data) as response:
            if response.status in (404, 405):
                self._takes_batches = False
                return None
            if response.status != 200:
                raise Unavailable(f"{self.server.url} answered {response.status} to a batch")
            answer = bytearray()
            async for piece in self._pieces(response):
                answer += piece
                if len(answer) > batch.MESSAGE_MAX_BYTES:
                    break
        try:
            return decode(bytes(answer))
        except InvalidRequest:
            # Whatever this is, it is no answer of ours: an error page, or another server's.
            self._takes_batches = False
            return None

    async def delete(self, id: str) -> None:
        """Raises Unavailable, also for original servers, which cannot delete."""
        async with self._request("DELETE", f"/blob/{id}") as response:
            await self._read_answer(response)
            if response.status != 200:
                raise Unavailable(f"{self.server.url} answered {response.status} to a deletion")

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        data: bytes | AsyncIterator[Buffer] | None = None,
        patience_seconds: float | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        patience = SILENCE_MAX_SECONDS if patience_seconds is None else patience_seconds
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_MAX_SECONDS, sock_read=patience)
        with self._mapped():
            async with self._session.request(
                method,
                self.server.url + path,
                headers={**self._headers, **(headers or {})},
                data=data,
                timeout=timeout,
                allow_redirects=False,
            ) as response:
                yield response

    def _check_found(self, status: int, id: str) -> None:
        if status == 404:
            raise NotFound(f"{self.server.url} does not have {id}")
        if status != 200:
            raise Unavailable(f"{self.server.url} answered {status} for {id}")

    async def _pieces(self, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        with self._mapped():
            async for piece in response.content.iter_any():
                yield piece

    async def _read_answer(self, response: aiohttp.ClientResponse) -> bytes:
        with self._mapped():
            return await response.content.read(_ANSWER_MAX_BYTES)

    @contextmanager
    def _mapped(self) -> Generator[None, None, None]:
        """aiohttp's errors as ours."""
        try:
            yield
        except TimeoutError:
            raise Timeout(f"{self.server.url} fell silent") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Unavailable(f"{self.server.url}: {str(error) or type(error).__name__}") from None


class _Progress:
    """Sees that an upload moves: aiohttp waits for ever for a server that does not read."""

    def __init__(self) -> None:
        self._deadline: asyncio.Timeout | None = None

    @asynccontextmanager
    async def limit(self, seconds: float) -> AsyncIterator[None]:
        """Raises Timeout after so many seconds; `watch` begins them anew with each piece."""
        try:
            async with asyncio.timeout(seconds) as self._deadline:
                yield
        except TimeoutError:
            raise Timeout("a blob server takes no more bytes") from None

    async def watch(self, body: AsyncIterator[Buffer]) -> AsyncIterator[Buffer]:
        async for piece in body:
            self._allow(SILENCE_MAX_SECONDS)
            yield piece
        self._allow(ANSWER_MAX_SECONDS)

    def _allow(self, seconds: float) -> None:
        assert self._deadline is not None
        self._deadline.reschedule(asyncio.get_running_loop().time() + seconds)


class _Stored(msgspec.Struct):
    """What of the answer to an upload is relied on."""

    id: str
    size: int


def extra_headers(response: aiohttp.ClientResponse) -> dict[str, str]:
    """The `X-*` headers, of several of one name the first, each byte a character."""
    decoded = ((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in response.raw_headers)
    found: dict[str, str] = {}
    for name, value in decoded:
        if name.startswith("x-"):
            found.setdefault(name, value)
    return found


def _as_sent(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers whose characters are bytes, as aiohttp wants them, which sends UTF-8: what is UTF-8 comes out as it came
    in. Of what is not, each byte becomes a character of UTF-8, for there is no way to send it as it is."""
    sent: dict[str, str] = {}
    for name, value in headers.items():
        try:
            sent[name] = value.encode("latin-1").decode("utf-8")
        except UnicodeDecodeError:
            sent[name] = value
    return sent


def _puts_of(data: bytes, blobs: Sequence[SmallBlob]) -> list[batch.Put]:
    return batch.decode_puts(data, [blob.id for blob in blobs])


def _names_blob(answer: bytes, id: str, size: int) -> bool:
    """Whether an answer says that this blob was stored, in whatever order of fields."""
    try:
        said = msgspec.json.decode(answer, type=_Stored)
    except msgspec.MsgspecError:
        return False
    return (said.id, said.size) == (id, size)


class _IdList:
    """A JSON array of strings, as it arrives. Raises RemoteProtocolError for anything else."""

    def __init__(self) -> None:
        self._rest = b""
        self._before = b"["
        """What stands before the next string."""

    def feed(self, piece: bytes) -> list[str]:
        """The ids that are whole by now."""
        self._rest += piece
        found: list[bytes] = []
        at = 0
        while (item := _ITEM.match(self._rest, at)) is not None:
            if item[1] != self._before:
                raise _no_list()
            self._before = b","
            found.append(item[2])
            at = item.end()
        self._rest = self._rest[at:]
        if len(self._rest) > ITEM_MAX_BYTES:
            raise _no_list()
        try:
            names = msgspec.json.decode(b"[" + b",".join(found) + b"]", type=list[str])
        except msgspec.MsgspecError:
            raise _no_list() from None
        return [name for name in names if is_id(name)]

    def finish(self) -> None:
        """The end. Of a list that was cut off there is none."""
        if b"".join(self._rest.split()) != (b"[]" if self._before == b"[" else b"]"):
            raise _no_list()


def _no_list() -> RemoteProtocolError:
    return RemoteProtocolError("this is no list of ids, or it was cut off")
