"""Counters of the gateway, for Prometheus, summed over all worker processes.

Each process counts in a file of its own in the run directory (tmpfs), mapped into memory: an increment is an addition
in place, nothing is ever sent, and what was counted survives kill -9. Whoever is asked for the metrics adds the files
up. A file is held by `flock` while its process lives; the next process that starts takes over the file of a dead one
and counts on in it, so that no counter goes back and there are never more files than processes at a time. Gauges count
only in files that are held.

    offset 0    "HFMETRIC", version (u32), count of slots (u32), BLAKE2b-128 of the slots' names
    offset 32   the slots, int64, times in microseconds, in the machine's byte order

A file of another layout (another release) is replaced: counters begin anew, as Prometheus expects of a restart.
"""

import fcntl
import mmap
import os
import struct
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import accumulate, count
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from holdfast.gateways.s3.routing import VERBS

# Upper bounds in seconds: a small GET takes half a millisecond, a large upload minutes.
BUCKETS_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
CLASSES = ("2xx", "3xx", "4xx", "5xx", "gone")
NO_VERB = "none"
"""Requests that were refused before a verb was found, and health checks."""

_NAMES = (NO_VERB, *(verb.name for verb in VERBS))
_PER_VERB = len(CLASSES) + len(BUCKETS_SECONDS) + 1 + 1
_RECEIVED = len(_NAMES) * _PER_VERB
_SENT = _RECEIVED + 1
_IN_FLIGHT = _SENT + 1
_SLOTS_COUNT = _IN_FLIGHT + 1
_GONE_STATUS = 499
_PER_SECOND = 1_000_000

_HEADER = struct.Struct("<8sII16s")
_MAGIC, _VERSION = b"HFMETRIC", 1
_FILE_BYTES = _HEADER.size + 8 * _SLOTS_COUNT
_LAYOUT = blake2b(repr((_NAMES, CLASSES, BUCKETS_SECONDS)).encode(), digest_size=16).digest()
_FILE_HEADER = _HEADER.pack(_MAGIC, _VERSION, _SLOTS_COUNT, _LAYOUT)


class Metrics:
    """The counters of this process. Used on the event loop only."""

    def __init__(self, slots: "memoryview[int] | None" = None) -> None:
        """Counts into `slots`; without them in memory, seen by nobody else."""
        self._slots = memoryview(array("q", bytes(8 * _SLOTS_COUNT))) if slots is None else slots
        self._base = {name: position * _PER_VERB for position, name in enumerate(_NAMES)}
        self._descriptor: int | None = None

    @classmethod
    def open(cls, directory: Path) -> "Metrics":
        """Count in a file of `directory`, taken over from a dead process if there is one."""
        for number in count():
            descriptor = os.open(directory / f"s3-metrics-{number}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                continue
            if os.pread(descriptor, _HEADER.size, 0) != _FILE_HEADER or os.fstat(descriptor).st_size != _FILE_BYTES:
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, _FILE_HEADER + bytes(8 * _SLOTS_COUNT), 0)
            mapped = memoryview(mmap.mmap(descriptor, _FILE_BYTES))
            metrics = cls(mapped[_HEADER.size :].cast("q"))
            metrics._descriptor = descriptor
            metrics._slots[_IN_FLIGHT] = 0
            return metrics
        raise AssertionError("unreachable: the numbers do not end")

    def begin(self) -> None:
        """A request has come in."""
        self._slots[_IN_FLIGHT] += 1

    def end(self, verb: str, status: int, seconds: float, received: int, sent: int) -> None:
        """It has been answered, or its client is gone."""
        slots = self._slots
        base = self._base.get(verb, 0)
        slots[base + (len(CLASSES) - 1 if status == _GONE_STATUS else status // 100 - 2)] += 1
        base += len(CLASSES)
        slots[base + bisect_left(BUCKETS_SECONDS, seconds)] += 1
        slots[base + len(BUCKETS_SECONDS) + 1] += int(seconds * _PER_SECOND)
        slots[_RECEIVED] += received
        slots[_SENT] += sent
        slots[_IN_FLIGHT] -= 1

    def values(self) -> Sequence[int]:
        """This process's slots, as they are now."""
        return list(self._slots)


def read_directory(directory: Path) -> list[int]:
    """The slots of all processes, added up."""
    total = [0] * _SLOTS_COUNT
    for path in sorted(directory.glob("s3-metrics-*")):
        data = path.read_bytes()
        if len(data) != _FILE_BYTES or not data.startswith(_FILE_HEADER):
            continue
        slots = array("q", data[_HEADER.size :])
        if not _is_held(path):
            slots[_IN_FLIGHT] = 0
        total = [left + right for left, right in zip(total, slots, strict=True)]
    return total


def _is_held(path: Path) -> bool:
    """Whether a living process counts in that file."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


class GatewayCollector(Collector):
    """Prometheus's view of what `read` gives: the slots of one process, or of all."""

    def __init__(self, directory: Path | None = None, metrics: Metrics | None = None) -> None:
        """Of all processes of a run directory; without one, of this process alone."""
        self._directory = directory
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        if self._directory is not None:
            slots: Sequence[int] = read_directory(self._directory)
        else:
            slots = self._metrics.values() if self._metrics is not None else [0] * _SLOTS_COUNT
        requests = CounterMetricFamily(
            "holdfast_s3_requests", "Requests answered, by verb and class of status", labels=("verb", "status")
        )
        seconds = HistogramMetricFamily(
            "holdfast_s3_request_seconds", "Time from the request's head to the end of its answer", labels=("verb",)
        )
        for name, values in _by_verb(slots):
            counted = values[len(CLASSES) :]
            if not any(values):
                continue
            for kind, value in zip(CLASSES, values, strict=False):
                requests.add_metric((name, kind), value)
            bounds = [*(str(bound) for bound in BUCKETS_SECONDS), "+Inf"]
            buckets = list(zip(bounds, accumulate(counted[:-1]), strict=True))
            seconds.add_metric((name,), buckets, counted[-1] / _PER_SECOND)
        yield requests
        yield seconds
        yield CounterMetricFamily("holdfast_s3_received_bytes", "Bytes of request bodies", value=slots[_RECEIVED])
        yield CounterMetricFamily("holdfast_s3_sent_bytes", "Bytes of answers' bodies", value=slots[_SENT])
        yield GaugeMetricFamily("holdfast_s3_requests_in_flight", "Requests being served", value=slots[_IN_FLIGHT])


def _by_verb(slots: Sequence[int]) -> Iterator[tuple[str, Sequence[int]]]:
    for position, name in enumerate(_NAMES):
        yield name, slots[position * _PER_VERB : (position + 1) * _PER_VERB]


def render(collectors: Iterable[Collector]) -> bytes:
    """The exposition text of some collectors: the gateway's, and whatever else the server has to tell."""
    registry = CollectorRegistry(auto_describe=False)
    for collector in collectors:
        registry.register(collector)
    return generate_latest(registry)
