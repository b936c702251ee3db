"""A closed loop of HTTP/1.1 connections over epoll: the cheapest client that Python can be.

Each connection sends a request, reads the whole answer, notes how long it took and sends the next. There is no event
loop, no parser object and no copy of a body: on a machine of two cores whatever the client spends is taken from the
server. A process runs one loop; `bench.run` starts several.
"""

import select
import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from time import perf_counter

from holdfast.core.ids import Buffer
from holdfast.core.limits import KIB, MIB

HEAD_MAX_BYTES = 64 * KIB
RECEIVE_BYTES = MIB

# A signed chunk is a frame, data and a line's end: a system call for each would cost more than the signature.
PIECES_PER_CALL_COUNT = 16

# An answer that takes this long is an error of its own.
STALL_MAX_SECONDS = 60.0

# Enough to say what goes wrong, without filling the memory when everything does.
ERRORS_KEPT_COUNT = 5


@dataclass(slots=True)
class Request:
    """What to send, piece by piece, and what is expected of the answer."""

    pieces: Iterable[Buffer]
    status: int = 200
    has_body: bool = True
    """False for HEAD, whose Content-Length is not followed by a body."""
    inspect: Callable[[bytes], int] | None = None
    """Given the whole body; says how many units the answer is worth. Without it every answer is worth `units`."""
    units: int = 1
    expected: Callable[[], bytes] | None = None
    """The body that must come, if this answer is one of the sample that is verified."""
    transferred: int = 0
    """Bytes of object data that this request moves."""


@dataclass(slots=True)
class Tally:
    """What the loop of one process saw. Latencies in seconds; only what ended inside the window counts."""

    latencies: list[float] = field(default_factory=list)
    units: int = 0
    transferred: int = 0
    verified: int = 0
    failures: int = 0
    errors: list[str] = field(default_factory=list)
    ended: float = 0.0
    """perf_counter when the last request ended."""

    def fail(self, what: str) -> None:
        self.failures += 1
        if len(self.errors) < ERRORS_KEPT_COUNT:
            self.errors.append(what)


class _Connection:
    """One connection and the request that is under way on it."""

    __slots__ = ("body_left", "collected", "head", "pieces", "request", "sending", "socket", "started", "status")

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, STALL_MAX_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)

    def start(self, request: Request) -> None:
        self.request = request
        self.pieces: Iterator[Buffer] = iter(request.pieces)
        self.sending: list[memoryview] = []
        self.head = b""
        self.status = 0
        self.body_left = -1
        keep = request.inspect is not None or request.expected is not None
        self.collected: bytearray | None = bytearray() if keep else None
        self.started = perf_counter()

    def send(self) -> bool:
        """Send until the socket takes no more; whether everything is sent."""
        sending = self.sending
        while True:
            if not sending:
                sending.extend(map(memoryview, islice(self.pieces, PIECES_PER_CALL_COUNT)))
                if not sending:
                    return True
            try:
                count = self.socket.sendmsg(sending)
            except BlockingIOError:
                return False
            while sending and count >= len(sending[0]):
                count -= len(sending.pop(0))
            if count:
                sending[0] = sending[0][count:]

    def receive(self, buffer: memoryview) -> bool:
        """Take what has come; whether the answer is complete. Raises OSError, ValueError."""
        count = self.socket.recv_into(buffer)
        if not count:
            raise ConnectionError("connection ended before the answer did")
        data = buffer[:count]
        if self.body_left < 0:
            self.head += bytes(data[:HEAD_MAX_BYTES])
            end = self.head.find(b"\r\n\r\n")
            if end < 0:
                return False
            body_start = end + 4 - (len(self.head) - min(count, HEAD_MAX_BYTES))
            data = data[body_start:]
            self._understand(self.head[:end].lower())
        if self.body_left == 0 and len(data):
            raise ValueError(f"{len(data)} bytes behind the answer")
        if self.collected is not None:
            self.collected += data
        self.body_left -= len(data)
        if self.body_left < 0:
            raise ValueError("bytes behind the answer")
        return self.body_left == 0

    def _understand(self, head: bytes) -> None:
        self.status = int(head[9:12])
        start = head.find(b"\r\ncontent-length:")
        if not self.request.has_body or self.status in (204, 304):
            self.body_left = 0
        elif start >= 0:
            self.body_left = int(head[start + 17 :].partition(b"\r\n")[0])
        else:
            raise ValueError("an answer without Content-Length")

    def settle(self, tally: Tally, now: float, *, counted: bool) -> None:
        """Judge the complete answer."""
        request = self.request
        if self.status != request.status:
            tally.fail(f"{self.status} for {request.status}: {bytes(self.collected or b'')[:200]!r}")
            return
        if request.expected is not None:
            if bytes(self.collected or b"") != request.expected():
                tally.fail(f"wrong bytes: {len(self.collected or b'')} of them")
                return
            tally.verified += 1
        if not counted:
            return
        units = request.units if request.inspect is None else request.inspect(bytes(self.collected or b""))
        tally.latencies.append(now - self.started)
        tally.units += units
        tally.transferred += request.transferred
        tally.ended = now


class _Loop:
    """The connections of one process, each with its source of requests."""

    def __init__(self, address: tuple[str, int], begin: float, end: float) -> None:
        self.tally = Tally()
        self._address = address
        self._begin, self._end = begin, end
        self._buffer = memoryview(bytearray(RECEIVE_BYTES))
        self._poll = select.epoll()
        self._active: dict[int, tuple[_Connection, Iterator[Request]]] = {}

    def open(self, source: Iterator[Request]) -> None:
        connection = _Connection(self._address)
        descriptor = connection.socket.fileno()
        self._active[descriptor] = (connection, source)
        self._poll.register(descriptor, select.EPOLLIN)
        self._launch(descriptor, connection, source)

    def run(self) -> None:
        while self._active and (now := perf_counter()) < self._end:
            events = self._poll.poll(min(self._end - now, STALL_MAX_SECONDS))
            if not events and perf_counter() < self._end:
                self.tally.fail(f"no answer in {STALL_MAX_SECONDS:.0f} s")
                break
            for descriptor, event in events:
                self._serve(descriptor, event)
        for connection, _ in self._active.values():
            connection.socket.close()
        self._poll.close()

    def _serve(self, descriptor: int, event: int) -> None:
        connection, source = self._active[descriptor]
        try:
            if event & select.EPOLLOUT and connection.send():
                self._poll.modify(descriptor, select.EPOLLIN)
            if not event & ~select.EPOLLOUT or not connection.receive(self._buffer):
                return
        except (OSError, ValueError) as error:
            self.tally.fail(repr(error))
            self._close(descriptor, connection)
            self.open(source)
            return
        now = perf_counter()
        connection.settle(self.tally, now, counted=self._begin <= now < self._end)
        self._launch(descriptor, connection, source)

    def _launch(self, descriptor: int, connection: _Connection, source: Iterator[Request]) -> None:
        request = next(source, None)
        if request is None:
            self._close(descriptor, connection)
            return
        connection.start(request)
        if not connection.send():
            self._poll.modify(descriptor, select.EPOLLIN | select.EPOLLOUT)

    def _close(self, descriptor: int, connection: _Connection) -> None:
        del self._active[descriptor]
        connection.socket.close()


def run_loop(address: tuple[str, int], sources: list[Iterator[Request]], begin: float, end: float) -> Tally:
    """Run a connection per source from now on; count what ends between `begin` and `end` (perf_counter).

    Ends at `end`, or when every source is exhausted. A connection that fails is opened anew.
    """
    loop = _Loop(address, begin, end)
    for source in sources:
        loop.open(source)
    loop.run()
    return loop.tally
