"""Counters over processes, and the port that shows them."""

import asyncio
import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from holdfast.gateways.s3.metrics import GatewayCollector, Metrics, render
from holdfast.gateways.s3.metrics_server import MetricsServer
from holdfast.testing.clock import FakeClock
from holdfast.testing.server import free_port


def _value(directory: Path, line: str) -> float:
    text = render([GatewayCollector(directory)]).decode()
    found = [row.rpartition(" ")[2] for row in text.splitlines() if row.startswith(line + " ")]
    return float(found[0]) if found else 0.0


def _count_and_hang(directory: Path, ready: "multiprocessing.Queue[int]") -> None:
    metrics = Metrics.open(directory)
    for _ in range(3):
        metrics.begin()
    metrics.end("GetObject", 200, 0.002, 0, 10)
    ready.put(os.getpid())
    signal.pause()


def test_counters_survive_the_death_of_their_process_and_gauges_do_not(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Queue()
    requests = 'holdfast_s3_requests_total{status="2xx",verb="GetObject"}'
    processes = [context.Process(target=_count_and_hang, args=(tmp_path, ready)) for _ in range(2)]
    for process in processes:
        process.start()
    for _ in processes:
        ready.get(timeout=20)
    assert _value(tmp_path, requests) == 2
    assert _value(tmp_path, "holdfast_s3_requests_in_flight") == 4
    for process in processes:
        process.kill()
        process.join()
    assert _value(tmp_path, requests) == 2
    assert _value(tmp_path, "holdfast_s3_requests_in_flight") == 0
    heir = Metrics.open(tmp_path)
    heir.begin()
    heir.end("GetObject", 206, 0.2, 0, 5)
    assert len(list(tmp_path.iterdir())) == 2
    assert _value(tmp_path, requests) == 3
    assert _value(tmp_path, "holdfast_s3_sent_bytes_total") == 25
    assert _value(tmp_path, 'holdfast_s3_request_seconds_bucket{le="0.0025",verb="GetObject"}') == 2
    assert _value(tmp_path, 'holdfast_s3_request_seconds_bucket{le="+Inf",verb="GetObject"}') == 3
    assert _value(tmp_path, 'holdfast_s3_request_seconds_sum{verb="GetObject"}') == pytest.approx(0.204)


def test_a_file_of_another_layout_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "s3-metrics-0").write_bytes(b"something else")
    assert _value(tmp_path, "holdfast_s3_sent_bytes_total") == 0
    metrics = Metrics.open(tmp_path)
    metrics.begin()
    metrics.end("PutObject", 503, 0.1, 7, 0)
    assert _value(tmp_path, 'holdfast_s3_requests_total{status="5xx",verb="PutObject"}') == 1
    assert _value(tmp_path, "holdfast_s3_received_bytes_total") == 7


async def _get(port: int, request: bytes) -> bytes:
    async with asyncio.timeout(60):
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.01)
                continue
            break
    writer.write(request)
    answer = await reader.read()
    writer.close()
    await asyncio.gather(writer.wait_closed(), return_exceptions=True)
    return answer


async def test_whoever_lives_answers_on_the_port() -> None:
    port = free_port()
    clock = FakeClock()
    first = asyncio.create_task(MetricsServer("127.0.0.1", port, lambda: b"first", clock).run())
    await _get(port, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    second = asyncio.create_task(MetricsServer("127.0.0.1", port, lambda: b"second", clock).run())
    await asyncio.sleep(0.05)
    assert (await _get(port, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")).endswith(b"\r\n\r\nfirst")
    assert b" 404 " in await _get(port, b"GET /else HTTP/1.1\r\n\r\n")
    first.cancel()
    await asyncio.wait([first])
    await clock.advance(1.0)
    await asyncio.sleep(0.05)
    assert (await _get(port, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")).endswith(b"\r\n\r\nsecond")
    second.cancel()
    await asyncio.wait([second])
