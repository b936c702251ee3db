"""What a row costs: CPU and memory of a server's processes, percentiles, and how fast this core hashes."""

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import md5, sha256
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Self

import blake3
import psutil

from holdfast.core.limits import KIB, MIB

# Reading smaps_rollup walks page tables under the process's lock: seldom enough not to be felt.
SAMPLE_SECONDS = 0.5


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of the sorted `values` lie; nan when there are none."""
    if not values:
        return float("nan")
    return values[min(len(values) - 1, int(share * len(values)))]


def tree(pid: int) -> list[psutil.Process]:
    """A process and all that descend from it."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def cpu_seconds(pid: int) -> float:
    """User and system time of a process tree so far, its ended and awaited children included."""
    total = 0.0
    for process in tree(pid):
        try:
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
        except psutil.NoSuchProcess:
            continue
    return total


def memory_bytes(pid: int) -> int:
    """Pss_Anon and Pss_Shmem of a process tree: what it keeps from others, page cache left out."""
    total = 0
    for process in tree(pid):
        try:
            lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        fields = dict(line.split(":", 1) for line in lines[1:])
        total += sum(int(fields[name].split()[0]) * KIB for name in ("Pss_Anon", "Pss_Shmem"))
    return total


class MemorySampler:
    """The peak of `memory_bytes` while the block runs."""

    def __init__(self, pid: int | None) -> None:
        self._pid = pid
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.peak_bytes = 0

    def _run(self) -> None:
        assert self._pid is not None
        while True:
            self.peak_bytes = max(self.peak_bytes, memory_bytes(self._pid))
            if self._stopped.wait(SAMPLE_SECONDS):
                return

    def __enter__(self) -> Self:
        if self._pid is not None:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pid is not None:
            self._stopped.set()
            self._thread.join()


@dataclass(frozen=True, slots=True)
class HashRates:
    """MiB/s of one core."""

    md5: float
    sha256: float
    blake3: float

    def __str__(self) -> str:
        return f"one core hashes MiB/s: MD5 {self.md5:.0f}, SHA-256 {self.sha256:.0f}, BLAKE3 {self.blake3:.0f}"


def hash_rates(length: int = 32 * MIB) -> HashRates:
    """What the hashes that S3 demands leave of a core."""
    piece = os.urandom(MIB)

    def rate(kind: type) -> float:
        hasher = kind()
        began = perf_counter()
        for _ in range(length // MIB):
            hasher.update(piece)
        return length / MIB / (perf_counter() - began)

    return HashRates(rate(md5), rate(sha256), rate(blake3.blake3))  # type: ignore[arg-type]
