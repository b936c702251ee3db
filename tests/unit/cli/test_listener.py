"""The further port of a worker: ASGI as the specification has it, seen from both ends of a socket."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from holdfast.cli import listener
from holdfast.cli.listener import Application, Listener, Message, Receive, Send, check_free
from holdfast.cli.system import SystemClock
from holdfast.core.errors import Corrupt, Unavailable
from holdfast.core.limits import MIB
from holdfast.testing.server import free_port

# When something that should take no time is taken for stuck.
ANSWER_SECONDS = 60


async def wait_for_port(port: int, *, answers: bool) -> None:
    """Until somebody listens there, or nobody any more."""
    async with asyncio.timeout(ANSWER_SECONDS):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                if not answers:
                    return
            else:
                writer.transport.abort()
                await asyncio.gather(writer.wait_closed(), return_exceptions=True)
                if answers:
                    return
            await asyncio.sleep(0.01)


@asynccontextmanager
async def listening_task(application: Application) -> AsyncIterator["tuple[int, asyncio.Task[None]]"]:
    port = free_port()
    task = asyncio.create_task(Listener(application, "127.0.0.1", port, None, SystemClock()).run())
    await wait_for_port(port, answers=True)
    try:
        yield port, task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def listening(application: Application) -> AsyncIterator[int]:
    async with listening_task(application) as (port, _):
        yield port


async def exchange(port: int, request: bytes) -> tuple[bytes, bytes]:
    """Head and body of the answer to a request that closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await asyncio.wait_for(reader.read(), ANSWER_SECONDS)
    writer.close()
    await asyncio.gather(writer.wait_closed(), return_exceptions=True)
    head, _, body = answer.partition(b"\r\n\r\n")
    return head, body


def answering(scopes: list[Any], bodies: list[bytes]) -> Application:
    async def application(scope: Message, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        body = b""
        while True:
            message = await receive()
            body += message["body"]
            if not message["more_body"]:
                break
        bodies.append(body)
        await send({"type": "http.response.start", "status": 201, "headers": [(b"x-a", b"1"), (b"x-a", b"2")]})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await send({"type": "http.response.body", "body": b"two"})

    return application


async def test_a_request_and_its_answer() -> None:
    scopes: list[Any] = []
    bodies: list[bytes] = []
    async with listening(answering(scopes, bodies)) as port:
        head, body = await exchange(
            port,
            b"POST /a%2Fb/%C3%BC?q=%20&r HTTP/1.1\r\nHost: h\r\nX-B: 1\r\nx-b: 2\r\nContent-Encoding: gzip\r\n"
            b"Connection: close\r\nContent-Length: 3\r\n\r\nabc",
        )
        assert head.startswith(b"HTTP/1.1 201 Created\r\n")
        assert (head.count(b"x-a:"), b"Server: Holdfast" in head) == (2, True)
        assert body == b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"
        _, body = await exchange(port, b"GET / HTTP/1.0\r\n\r\n")
        assert body == b"onetwo"
    assert bodies == [b"abc", b""]
    scope = scopes[0]
    assert (scope["raw_path"], scope["query_string"], scope["path"]) == (b"/a%2Fb/%C3%BC", b"q=%20&r", "/a/b/ü")
    assert (scope["method"], scope["http_version"], scope["client"][0]) == ("POST", "1.1", "127.0.0.1")
    assert [value for name, value in scope["headers"] if name == b"x-b"] == [b"1", b"2"]


async def test_a_sender_that_waits_is_told_to_go_on() -> None:
    bodies: list[bytes] = []
    async with listening(answering([], bodies)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), ANSWER_SECONDS) == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"abc")
        assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), ANSWER_SECONDS)).startswith(b"HTTP/1.1 201")
        writer.close()
    assert bodies == [b"abc"]


@pytest.mark.parametrize(
    "sent",
    [
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc",
    ],
)
@pytest.mark.parametrize("then", [b"", b"\r\nnonsense\r\n\r\n"])
async def test_a_body_that_breaks_off_has_no_end(sent: bytes, then: bytes) -> None:
    seen: asyncio.Queue[Message] = asyncio.Queue()

    async def application(scope: Message, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            seen.put_nowait(message)
            if message["type"] == "http.disconnect":
                return

    async with listening(application) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        assert (await asyncio.wait_for(seen.get(), ANSWER_SECONDS))["more_body"]
        if b"chunked" in sent:
            writer.write(then)
        writer.close()
        while (message := await asyncio.wait_for(seen.get(), ANSWER_SECONDS))["type"] == "http.request":
            assert message["more_body"]


async def test_who_waits_for_the_client_to_leave_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "_LOOK_SECONDS", 0.01)
    left = asyncio.Event()

    async def application(scope: Message, receive: Receive, send: Send) -> None:
        assert not (await receive())["more_body"]
        assert (await receive())["type"] == "http.disconnect"
        left.set()

    async with listening(application) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        await writer.drain()
        writer.close()
        await asyncio.wait_for(left.wait(), ANSWER_SECONDS)


def _raises_ours() -> None:
    raise Corrupt("rotten")


def _raises_a_bug() -> None:
    raise ValueError("a bug")


@pytest.mark.parametrize("fail", [_raises_ours, _raises_a_bug, lambda: None])
async def test_an_answer_without_an_end_breaks_the_connection(fail: Callable[[], None]) -> None:
    async def application(scope: Message, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        fail()

    async with listening(application) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await asyncio.wait_for(reader.readexactly(MIB), ANSWER_SECONDS)
        writer.close()


async def test_a_client_that_left_ends_the_sending() -> None:
    ended: asyncio.Queue[str] = asyncio.Queue()

    async def application(scope: Message, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                await send({"type": "http.response.body", "body": bytes(MIB), "more_body": True})
        except ConnectionError:
            ended.put_nowait("ended")
            raise

    async with listening(application) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        await reader.readexactly(MIB)
        writer.transport.abort()
        assert await asyncio.wait_for(ended.get(), ANSWER_SECONDS) == "ended"


async def test_requests_in_flight_are_let_end() -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def application(scope: Message, receive: Receive, send: Send) -> None:
        begun.set()
        await go_on.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})

    async with listening_task(application) as (port, task):
        asking = asyncio.create_task(exchange(port, b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"))
        await asyncio.wait_for(begun.wait(), ANSWER_SECONDS)
        task.cancel()
        await asyncio.sleep(0.05)  # or the first to look would be one more who is let end
        await wait_for_port(port, answers=False)
        assert not task.done()
        go_on.set()
        assert (await asking)[1].startswith(b"4\r\ndone")
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def stopping() -> AsyncIterator["tuple[asyncio.Task[None], asyncio.Event]"]:
    """A listener that was told to stop while a request hangs, and what the request sets when it is cancelled."""
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def application(scope: Message, receive: Receive, send: Send) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with listening_task(application) as (port, task):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        await asyncio.wait_for(begun.wait(), ANSWER_SECONDS)
        task.cancel()
        yield task, cancelled
        writer.close()


async def test_requests_that_do_not_end_are_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "DRAIN_SECONDS", 0.05)
    async with stopping() as (task, cancelled):
        await asyncio.wait_for(asyncio.gather(task, return_exceptions=True), ANSWER_SECONDS)
        assert cancelled.is_set()


@pytest.mark.parametrize("requests_first", [True, False])
async def test_a_loop_that_ends_while_requests_are_let_end(requests_first: bool) -> None:
    """Everything is cancelled at once, in any order, as `asyncio.run` does it: nobody fails by anything else."""
    before = asyncio.all_tasks()
    async with stopping():
        await asyncio.sleep(0.05)  # until the listener waits for the request
        tasks = sorted(
            asyncio.all_tasks() - before, key=lambda task: ("handle" in str(task.get_coro())) is not requests_first
        )
        assert len(tasks) >= 3
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert [found for found in ended if not isinstance(found, asyncio.CancelledError | None)] == []


async def test_a_port_in_use_is_said_and_waited_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listener, "_RETRY_SECONDS", 0.01)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(Unavailable, match="cannot listen"):
            check_free("127.0.0.1", port)
        with caplog.at_level(logging.ERROR, logger=listener.__name__):
            task = asyncio.create_task(Listener(answering([], []), "127.0.0.1", port, None, SystemClock()).run())
            for _ in range(1000):
                if caplog.records:
                    break
                await asyncio.sleep(0.01)
    assert str(port) in caplog.text
    for _ in range(1000):
        try:
            answer = await exchange(port, b"GET / HTTP/1.0\r\n\r\n")
        except ConnectionRefusedError:
            await asyncio.sleep(0.01)
        else:
            assert answer[1] == b"onetwo"
            break
    else:
        pytest.fail("the port was never taken")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    check_free("127.0.0.1", port)
