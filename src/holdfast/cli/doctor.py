"""`holdfast doctor`: whether these directories, the disks under them and this machine are fit to hold a store.

Each finding is a line with a grade: "ok", "note" for what should be known, "bad" for what must be changed first. Bad
findings make the exit status 1. The measurements are `cli.probing`'s; here is what they mean.
"""

import ctypes
import os
import resource
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from holdfast.cli import probing
from holdfast.cli.output import Output, count, listed, size
from holdfast.core.clock import Clock, Randomness
from holdfast.core.disk import Disk, Space
from holdfast.core.errors import HoldfastError
from holdfast.core.limits import GIB, MIB
from holdfast.drives.identity import DirectoryState, inspect_directory, warnings_of

# Below this a disk serves, and every small write waits for it.
SYNC_SLOW_SECONDS = 0.02

# No disk is as fast: a cache answers, and whether it survives a power cut is for its owner to know.
SYNC_DOUBTFUL_SECONDS = 10e-6

THROUGHPUT_SLOW_BYTES = 20 * MIB

# Less is a disk that is full before the day is over.
FREE_SHORT_SHARE = 0.05
FREE_MIN_BYTES = 1 * GIB

# What the trial drive and the small probes need, beside the throughput file.
ROOM_BYTES = 64 * MIB

# A busy worker has a socket for each connection and a file for each segment that is read.
FILES_MIN_COUNT = 4096

# A clock that is before the day of this line was never set. 2026-01-01 UTC, nanoseconds.
CLOCK_MIN_NS = 1_767_225_600 * 10**9

# A file that was just written may be dated a little off by a coarse clock, and not by more.
STAMP_MAX_SECONDS = 2.0

# adjtimex: the kernel's answer when nobody keeps the clock. From timex.h.
_TIME_ERROR = 5
_TIMEX_BYTES = 256


class Grade(StrEnum):
    OK = "ok"
    NOTE = "note"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    grade: Grade
    text: str
    figures: dict[str, Any] = field(default_factory=dict)
    """The same for programs."""


@dataclass(frozen=True, slots=True)
class Doctor:
    """Examines directories; takes what it needs of the world by the constructor."""

    disk: Disk
    clock: Clock
    randomness: Randomness
    throughput_bytes: int

    async def examine(self, directory: Path) -> list[Finding]:
        """Everything about one directory, until something makes more impossible."""
        try:
            state = inspect_directory(self.disk, directory)
        except HoldfastError as error:
            return [_bad(str(error))]
        if state is DirectoryState.MISSING:
            return [_bad("no such directory: mount the disk, or make the directory")]
        findings = [_what_is_there(state), *self._file_system(directory)]
        space = self.disk.space(directory)
        findings.append(judge_space(space, _inodes_left(directory)))
        if space.free < self.throughput_bytes + ROOM_BYTES:
            return [*findings, _note("not tried further, for want of room")]
        try:
            with probing.scratch(self.disk, directory) as own:
                findings += [finding async for finding in self._probe(own)]
        except OSError as error:
            findings.append(
                _bad(f"nothing can be written there ({error.strerror}): check owner, mode, and how it is mounted")
            )
        return findings

    def _file_system(self, directory: Path) -> Iterator[Finding]:
        kind = self.disk.kind(directory)
        said = warnings_of(self.disk, directory)
        for warning in said:
            yield _bad(warning.removeprefix(f"{directory} "))
        if not said:
            yield _ok(f"lies on {kind or 'a file system that cannot be told'}", file_system=kind)
        if kind == "overlay":
            yield _note("overlay is a container's own layer, and goes with the container: mount a volume")

    async def _probe(self, own: Path) -> AsyncIterator[Finding]:
        wrong = probing.lacks(self.disk, own)
        for text in wrong:
            yield _bad(text)
        if not wrong:
            yield _ok("locks, renames, allocation and syncs of directories work")
        if not probing.takes_direct(own):
            yield _note("no O_DIRECT: it works without, and the page cache is filled with what is read once")
        yield judge_stamp(self.clock.now_ns() / 1e9 - (own / "flock").stat().st_mtime)
        yield judge_syncs(probing.measure_syncs(self.disk, own, self.clock))
        try:
            measured = probing.measure_throughput(self.disk, own, self.clock, self.randomness, self.throughput_bytes)
            yield judge_throughput(measured, self.throughput_bytes)
            await probing.try_drive(self.disk, own, self.randomness)
            yield _ok("a drive was made there, written, read, closed, opened and read again")
        except HoldfastError as error:
            yield _bad(f"what was written does not come back ({error}): do not trust this disk")


def _ok(text: str, **figures: Any) -> Finding:
    return Finding(Grade.OK, text, figures)


def _note(text: str, **figures: Any) -> Finding:
    return Finding(Grade.NOTE, text, figures)


def _bad(text: str, **figures: Any) -> Finding:
    return Finding(Grade.BAD, text, figures)


def _what_is_there(state: DirectoryState) -> Finding:
    if state is DirectoryState.DRIVE:
        return _ok("is a Holdfast drive already", state=state.value)
    if state is DirectoryState.FOREIGN:
        return _note("holds other files: a new drive wants an empty directory", state=state.value)
    return _ok("is empty", state=state.value)


def judge_space(space: Space, inodes: int | None) -> Finding:
    """Free bytes, and files that may still be made; None where the file system knows no number."""
    said = f"{size(space.free)} of {size(space.total)} free"
    figures = {"free_bytes": space.free, "total_bytes": space.total}
    if inodes is not None and inodes < 1000:
        return _bad(f"{said}, but only {inodes:,} more files can be made: free inodes", **figures)
    if space.free < FREE_MIN_BYTES:
        return _bad(f"{said}: too little to hold anything; make room, or take a larger disk", **figures)
    if space.free < space.total * FREE_SHORT_SHARE:
        return _note(f"{said}: soon full, and a full store takes nothing but deletions", **figures)
    return _ok(said, **figures)


def judge_stamp(seconds: float) -> Finding:
    """How much older than now a file is that was just written."""
    if abs(seconds) > STAMP_MAX_SECONDS:
        return _note(f"files are dated {seconds:.0f} s off this machine's clock: the file system's server has another")
    return _ok("files are dated by this machine's clock")


def judge_syncs(times: probing.SyncTimes) -> Finding:
    said = (
        f"a page is on stable storage in {_milliseconds(times.median)} (half of them), "
        f"{_milliseconds(times.worst_percent)} (99 %)"
    )
    figures = {"sync_p50_seconds": times.median, "sync_p99_seconds": times.worst_percent}
    if times.median < SYNC_DOUBTFUL_SECONDS:
        return _note(
            f"{said}: no disk is as fast; unless its cache has a battery, a power cut loses what was acknowledged",
            **figures,
        )
    if times.median > SYNC_SLOW_SECONDS:
        return _note(
            f"{said}: slow, and every small write waits for it; a disk with its own power backup helps", **figures
        )
    return _ok(said, **figures)


def judge_throughput(measured: probing.Throughput, length: int) -> Finding:
    said = (
        f"{size(length)} written at {size(int(measured.write))}/s and read back at {size(int(measured.read))}/s, "
        "bit for bit"
    )
    figures = {"write_bytes_per_second": int(measured.write), "read_bytes_per_second": int(measured.read)}
    if min(measured.write, measured.read) < THROUGHPUT_SLOW_BYTES:
        return _note(f"{said}: slow; look at the disk's health, its cable, or what else uses it", **figures)
    return _ok(said, **figures)


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms"


def _inodes_left(directory: Path) -> int | None:
    status = os.statvfs(directory)
    return status.f_favail if status.f_files else None


def examine_machine(clock: Clock) -> list[Finding]:
    """The clock, and the limits of this process."""
    findings = [_judge_clock(clock.now_ns(), is_kept=_clock_is_kept())]
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < FILES_MIN_COUNT:
        findings.append(_note(f"a process may open {most:,} files: `ulimit -Hn {FILES_MIN_COUNT}`, or LimitNOFILE="))
    else:
        findings.append(_ok("processes may open files enough"))
    return findings


def _judge_clock(now_ns: int, *, is_kept: bool | None) -> Finding:
    if now_ns < CLOCK_MIN_NS:
        return _bad("the clock was never set: requests are refused beyond 15 minutes of the clients' clocks; use NTP")
    if is_kept is False:
        return _note("the kernel says that nobody keeps its clock right: run NTP (chrony, systemd-timesyncd)")
    return _ok("the clock is set")


def _clock_is_kept() -> bool | None:
    """Whether NTP has the clock in hand, by the kernel; None where it does not tell."""
    adjtimex = getattr(ctypes.CDLL(None), "adjtimex", None)
    if adjtimex is None:
        return None
    answer = adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    return None if answer < 0 else answer != _TIME_ERROR


def shared_disks(directories: Sequence[Path], devices: Path = Path("/sys/dev/block")) -> list[Finding]:
    """Which of the directories lie on one file system, or one disk: they are lost together."""
    file_systems, disks = dict[int, list[Path]](), dict[str, list[Path]]()
    for directory in directories:
        try:
            device = directory.stat().st_dev
        except OSError:
            continue
        if device not in file_systems:
            disks.setdefault(_disk_of(device, devices), []).append(directory)
        file_systems.setdefault(device, []).append(directory)
    findings = [
        _note(f"{_named(group)} lie on one file system: good for trying out, lost together")
        for group in file_systems.values()
        if len(group) > 1
    ]
    findings += [
        _note(f"{_named(group)} lie on partitions of one disk ({name}): lost together")
        for name, group in disks.items()
        if name and len(group) > 1
    ]
    if not findings and len(directories) > 1:
        findings.append(_ok("no two directories share a disk that can be told"))
    return findings


def _named(group: Sequence[Path]) -> str:
    return listed([str(path) for path in group])


def _disk_of(device: int, devices: Path) -> str:
    """The disk under a partition, by the kernel's name; "" where it cannot be told."""
    try:
        place = (devices / f"{os.major(device)}:{os.minor(device)}").resolve(strict=True)
    except OSError:
        return ""
    return place.parent.name if (place / "partition").exists() else place.name


async def examine_all(doctor: Doctor, output: Output, directories: Sequence[Path]) -> bool:
    """Examine and tell; whether nothing is bad."""
    report: list[tuple[str, list[Finding]]] = []
    for directory in directories:
        report.append((str(directory), await doctor.examine(directory)))
        _say(output, *report[-1])
    report.append(("this machine", [*shared_disks(directories), *examine_machine(doctor.clock)]))
    _say(output, *report[-1])
    bad = sum(finding.grade is Grade.BAD for _, findings in report for finding in findings)
    output.say("Nothing is wrong" if not bad else f"{count(bad, 'thing')} must be changed first")
    output.document(
        {
            "fit": not bad,
            "findings": [
                {"about": about, "grade": finding.grade.value, "text": finding.text, **finding.figures}
                for about, findings in report
                for finding in findings
            ],
        }
    )
    return not bad


def _say(output: Output, about: str, findings: Sequence[Finding]) -> None:
    output.say(about)
    for finding in findings:
        output.say(f"  {finding.grade.value:<4}  {finding.text}")
    output.say("")
