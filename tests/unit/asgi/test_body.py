"""A body in pieces: whole, or an error; never an end that is none."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.asgi import body as body_module
from holdfast.asgi.body import DRAIN_MAX_BYTES, SILENCE_MAX_SECONDS, Body, announced_length
from holdfast.asgi.errors import ClientGone, SenderSilent
from holdfast.asgi.messages import Message
from holdfast.core.errors import InvalidRequest
from holdfast.core.limits import MIB
from holdfast.objects.errors import IncompleteBody
from tests.unit.objects.world import run


class Sender:
    """Sends pieces, and then what it was told: the end, the end of the connection, or nothing."""

    def __init__(self, pieces: Sequence[bytes], then: str = "end") -> None:
        self.messages: list[Message] = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
        if then == "end":
            self.messages.append({"type": "http.request"})
        elif then == "left":
            self.messages.append({"type": "http.disconnect"})
        self.asked = 0

    async def receive(self) -> Message:
        self.asked += 1
        if not self.messages:
            await asyncio.Event().wait()
        return self.messages.pop(0)


async def collect(body: Body) -> bytes:
    return b"".join([piece async for piece in body.stream()])


PIECES = st.lists(st.binary(max_size=5), max_size=6)


@settings(max_examples=50, deadline=None)
@given(PIECES, st.booleans())
def test_what_was_sent_arrives(pieces: list[bytes], announced: bool) -> None:
    data = b"".join(pieces)
    body = Body(Sender(pieces).receive, len(data) if announced else None)
    assert run(collect(body)) == data
    assert body.ended
    assert body.received == len(data)
    again = Body(Sender(pieces).receive, len(data) if announced else None)
    assert run(again.read(len(data))) == data


@settings(max_examples=50, deadline=None)
@given(PIECES, st.integers(-3, 3), st.sampled_from(["end", "left"]))
def test_only_the_announced_length_is_an_end(pieces: list[bytes], difference: int, then: str) -> None:
    length = sum(map(len, pieces)) + difference
    if length < 0:
        return
    if difference < 0:
        # Behind the announced length nothing is asked for: what is too much must come with it.
        pieces = [b"".join(pieces)]
    body = Body(Sender(pieces, then).receive, length)
    if not difference or not length:
        assert len(run(collect(body))) == length
        return
    expected = InvalidRequest if difference < 0 else ClientGone if then == "left" else IncompleteBody
    with pytest.raises(InvalidRequest) as caught:
        run(collect(body))
    assert type(caught.value) is expected


async def test_a_client_that_leaves_is_no_end() -> None:
    with pytest.raises(ClientGone):
        await collect(Body(Sender([b"some"], "left").receive, None))


async def test_nothing_is_asked_for_before_somebody_reads() -> None:
    sender = Sender([b"a", b"b"])
    body = Body(sender.receive, 2)
    assert sender.asked == 0
    stream = body.stream()
    assert await anext(stream) == b"a"
    assert sender.asked == 1
    assert [piece async for piece in stream] == [b"b"]
    assert sender.asked == 2, "the length says that nothing follows"
    assert await collect(Body(sender.receive, 0)) == b""
    assert sender.asked == 2


async def test_a_body_that_is_read_whole_is_bounded() -> None:
    with pytest.raises(InvalidRequest, match="more than 3 bytes"):
        await Body(Sender([b"12", b"34", b"56"]).receive, None).read(3)


async def test_a_silent_sender_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_module, "SILENCE_MAX_SECONDS", 0.01)
    body = Body(Sender([b"some"], "silence").receive, None)
    with pytest.raises(SenderSilent):
        await collect(body)
    assert not await body.drain(waiting=False)


async def test_who_is_slow_and_not_silent_is_let_go_on() -> None:
    """The one timer of a body, when it goes off, counts from the last message."""
    body = Body(Sender([b"some"], "silence").receive, None)
    reading = asyncio.create_task(collect(body))
    await asyncio.sleep(0)
    assert body.received == 4
    first = body._timer
    assert first is not None
    first.cancel()
    body._look()
    assert body._timer is not None, "it looks again"
    assert not reading.done()
    body._timer.cancel()
    body._since -= SILENCE_MAX_SECONDS
    body._look()
    with pytest.raises(SenderSilent):
        await reading


async def test_a_cancellation_from_elsewhere_is_one() -> None:
    reading = asyncio.create_task(collect(Body(Sender([], "silence").receive, None)))
    await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading


async def test_no_timer_outlives_a_body() -> None:
    for sender, length in ((Sender([b"a"]), 1), (Sender([b"a"]), None), (Sender([b"a"], "left"), 5)):
        body = Body(sender.receive, length)
        try:
            await collect(body)
        except ClientGone:
            pass
        assert body._timer is None


@pytest.mark.parametrize(
    ("pieces", "then", "length", "waiting", "ended", "asked"),
    [
        ([b"12", b"34"], "end", 4, False, True, 2),
        ([b"12", b"34"], "end", None, False, True, 3),
        ([b"12", b"34"], "end", 4, True, False, 0),
        ([b"12"], "left", 4, False, False, 2),
        ([b"12"], "end", DRAIN_MAX_BYTES + 1, False, False, 0),
        ([], "end", 0, False, True, 0),
        ([], "end", 0, True, True, 0),
    ],
)
async def test_what_is_refused_is_read_within_bounds(
    pieces: list[bytes], then: str, length: int | None, waiting: bool, ended: bool, asked: int
) -> None:
    sender = Sender(pieces, then)
    assert await Body(sender.receive, length).drain(waiting=waiting) is ended
    assert sender.asked == asked


async def test_an_endless_body_is_not_drained_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    piece = bytes(MIB)

    async def receive() -> Message:
        return {"type": "http.request", "body": piece, "more_body": True}

    body = Body(receive, None)
    assert not await body.drain(waiting=False)
    assert body.received == DRAIN_MAX_BYTES
    monkeypatch.setattr(body_module, "DRAIN_MAX_SECONDS", 0.01)
    assert not await Body(Sender([b"some"], "silence").receive, None).drain(waiting=False)


@pytest.mark.parametrize(
    ("version", "headers", "length"),
    [
        ("1.1", {}, 0),
        ("2", {}, None),
        ("1.1", {"content-length": "12"}, 12),
        ("1.1", {"content-length": "12", "transfer-encoding": "chunked"}, None),
        ("1.1", {"content-length": "1x"}, None),
        ("1.1", {"content-length": "-1"}, None),
        ("1.1", {"content-length": "1" * 20}, None),
    ],
)
def test_what_is_announced(version: str, headers: dict[str, str], length: int | None) -> None:
    assert announced_length(version, headers) == length
