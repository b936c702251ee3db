"""Answers on their way: to their end, or broken off so that it shows."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from holdfast.asgi import sending
from holdfast.asgi.errors import ClientGone
from holdfast.asgi.messages import Message
from holdfast.asgi.sending import MESSAGE_MAX_BYTES, Sender
from holdfast.core.errors import Corrupt
from holdfast.core.ids import Buffer


class Client:
    """Takes what is sent."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.left = asyncio.Event()
        self.takes = asyncio.Event()
        self.takes.set()

    async def receive(self) -> Message:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        await self.takes.wait()
        self.messages.append(message)

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.messages if message["type"] == "http.response.body")

    @property
    def ended(self) -> bool:
        return bool(self.messages) and not self.messages[-1].get("more_body", self.messages[-1]["type"][-1] == "t")


class Pieces:
    """A stream that knows whether it was closed, and whose buffer is used again for each piece."""

    def __init__(self, *pieces: bytes, error: Exception | None = None) -> None:
        self.closed = False
        self._pieces = pieces
        self._error = error

    async def read(self) -> AsyncGenerator[Buffer, None]:
        try:
            for piece in self._pieces:
                buffer = bytearray(piece)
                yield memoryview(buffer)
                buffer[:] = bytes(len(buffer))
                await asyncio.sleep(0)
            if self._error is not None:
                raise self._error
        finally:
            self.closed = True


@pytest.fixture
def client() -> Client:
    return Client()


async def test_a_stream_goes_out_to_its_end(client: Client) -> None:
    sender = Sender(client.receive, client.send)
    before = sender.started
    await sender.start(206, [(b"a", b"b")])
    assert (before, sender.started) == (False, True)
    long = b"long" * (MESSAGE_MAX_BYTES // 4) + b"er"
    first = b"first" * (MESSAGE_MAX_BYTES // 4)
    await sender.stream(first, Pieces(b"", b"second", long).read())
    assert client.messages[0] == {"type": "http.response.start", "status": 206, "headers": [(b"a", b"b")]}
    assert client.body == first + b"second" + long
    assert client.ended
    assert max(len(message["body"]) for message in client.messages[1:]) == MESSAGE_MAX_BYTES
    assert sender.sent == len(client.body)


async def test_a_whole_answer(client: Client) -> None:
    sender = Sender(client.receive, client.send)
    await sender.start(200, [])
    await sender.end(b"all")
    assert (client.body, client.ended, sender.sent) == (b"all", True, 3)


async def test_what_cannot_be_read_breaks_the_answer_off(client: Client) -> None:
    pieces = Pieces(b"second", error=Corrupt("broken"))
    with pytest.raises(Corrupt):
        await Sender(client.receive, client.send).stream(b"first", pieces.read())
    assert (client.body, client.ended, pieces.closed) == (b"firstsecond", False, True)


async def test_a_client_that_left_is_sent_no_more(client: Client) -> None:
    pieces = Pieces(*[b"x"] * 100)
    sender = Sender(client.receive, client.send)
    client.left.set()
    with pytest.raises(ClientGone):
        await sender.stream(b"first", pieces.read())
    assert pieces.closed
    assert sender.sent < 100
    assert not client.ended


async def test_a_client_that_takes_nothing_is_given_up(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "SEND_MAX_SECONDS", 0.01)
    client.takes.clear()
    pieces = Pieces(b"x")
    with pytest.raises(ClientGone):
        await Sender(client.receive, client.send).stream(b"first", pieces.read())
    with pytest.raises(ClientGone):
        await Sender(client.receive, client.send).end(bytes(100_000))
    assert client.messages == []
