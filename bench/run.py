"""One row against one server: processes that load it, and what it cost."""

import itertools
import math
import multiprocessing
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from time import perf_counter, sleep

from bench.figures import MemorySampler, cpu_seconds, percentile
from bench.loop import Request, Tally, run_loop
from bench.rows import BUCKET, Row, Sources, Target
from holdfast.core.limits import MIB

PREPARE_CONNECTIONS_COUNT = 8


@dataclass(frozen=True, slots=True)
class Result:
    """A row's figures. Times in milliseconds, memory in MiB."""

    row: str
    rate: float
    unit: str
    p50_ms: float
    p99_ms: float
    requests: int
    failures: int
    verified: int
    server_cpu_ms: float
    """A request; nan when the server's processes are not known."""
    client_cpu_ms: float
    server_busy: float
    """Cores' worth of CPU that the server took."""
    memory_mib: float
    """Peak of the server's Pss_Anon and Pss_Shmem."""
    errors: tuple[str, ...] = ()


def prepare(target: Target, sources: Sources) -> None:
    """Run finite sources to their end. Raises RuntimeError when a request fails."""
    count = PREPARE_CONNECTIONS_COUNT
    tally = run_loop(target.address, [sources(target, index, count) for index in range(count)], 0.0, math.inf)
    if tally.failures:
        raise RuntimeError(f"preparation: {tally.failures} failures: {tally.errors}")


def make_bucket(target: Target) -> None:
    """The bucket of every row; it may be there."""
    with target.client() as client:
        answer = client.make_bucket(BUCKET)
        if answer.status not in (200, 409):
            raise RuntimeError(f"cannot make the bucket: {answer.status} {answer.body[:300]!r}")


def _cpu(pid: int | None) -> float:
    return cpu_seconds(pid) if pid else math.nan


def _worker(pipe: Connection, target: Target, row: Row, indices: list[int], warm: float, length: float) -> None:
    """A process of the load: make what is made ahead, wait for the start, run, tell."""
    sources: list[Iterator[Request]] = []
    for index in indices:
        source = row.sources(target, index, row.connections)
        sources.append(itertools.chain(list(itertools.islice(source, row.ahead_count)), source))
    pipe.send("ready")
    start = pipe.recv()
    before = resource.getrusage(resource.RUSAGE_SELF)
    end = math.inf if row.exhaust else start + warm + length
    tally = run_loop(target.address, sources, start if row.exhaust else start + warm, end)
    after = resource.getrusage(resource.RUSAGE_SELF)
    pipe.send((tally, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime))


def run(
    target: Target, row: Row, *, pid: int | None, processes: int = 2, warm: float = 1.0, length: float = 5.0
) -> Result:
    """Measure a row whose preparation is done. `pid` is the root of the server's processes, if it is known.

    The clock (perf_counter) is the machine's monotonic one, the same in every process.
    """
    processes = min(processes, row.connections)
    context = multiprocessing.get_context("fork")
    pipes, children = [], []
    for number in range(processes):
        ours, theirs = context.Pipe()
        indices = list(range(number, row.connections, processes))
        child = context.Process(target=_worker, args=(theirs, target, row, indices, warm, length), daemon=True)
        child.start()
        pipes.append(ours)
        children.append(child)
    for pipe in pipes:
        assert pipe.recv() == "ready"
    with MemorySampler(pid) as memory:
        start = perf_counter()
        for pipe in pipes:
            pipe.send(start)
        begin = start if row.exhaust else start + warm
        sleep(begin - start)
        server_before, began = _cpu(pid), perf_counter()
        outcomes: list[tuple[Tally, float]] = []
        if row.exhaust:
            outcomes = [pipe.recv() for pipe in pipes]
        else:
            sleep(max(0.0, begin + length - perf_counter()))
        server_cpu, window = _cpu(pid) - server_before, perf_counter() - began
        outcomes = outcomes or [pipe.recv() for pipe in pipes]
    for child in children:
        child.join()
    return _result(row, [tally for tally, _ in outcomes], begin, length, sum(cpu for _, cpu in outcomes),
                   (server_cpu, window), memory.peak_bytes)  # fmt: skip


def _result(
    row: Row,
    tallies: list[Tally],
    begin: float,
    length: float,
    client_cpu: float,
    server: tuple[float, float],
    peak: int,
) -> Result:
    latencies = sorted(itertools.chain.from_iterable(tally.latencies for tally in tallies))
    seconds = max(tally.ended for tally in tallies) - begin if row.exhaust else length
    amount = sum(tally.transferred for tally in tallies) / MIB if row.unit == "MiB/s" else sum(t.units for t in tallies)
    requests = len(latencies)
    return Result(
        row=row.name,
        rate=amount / seconds if seconds > 0 else math.nan,
        unit=row.unit,
        p50_ms=percentile(latencies, 0.5) * 1e3,
        p99_ms=percentile(latencies, 0.99) * 1e3,
        requests=requests,
        failures=sum(tally.failures for tally in tallies),
        verified=sum(tally.verified for tally in tallies),
        server_cpu_ms=server[0] / requests * 1e3 if requests else math.nan,
        client_cpu_ms=client_cpu / requests * 1e3 if requests else math.nan,
        server_busy=server[0] / server[1],
        memory_mib=peak / MIB,
        errors=tuple(itertools.chain.from_iterable(tally.errors for tally in tallies)),
    )
