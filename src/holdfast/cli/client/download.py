"""From an object to a file: to a file beside, checked, and only then under its name.

Rules.

- A small object is one request, checked in memory. A large one is fetched in pieces, several at once, into a part file
  whose name holds the ETag; behind the object's bytes it has one byte for each piece, set when the piece is there.
  Killed at any moment, the same command fetches the pieces whose byte is not set.
- Every piece is asked for with If-Match: an object that is overwritten meanwhile is never mixed with its successor.
- The whole is checked before the rename, by the server's checksum of it, or its MD5s. If the server has neither, a part
  file of an earlier run is not trusted. If the check fails, what was kept of earlier runs is fetched again, once.
- Nothing but the time of modification is taken over: no owner, no mode, no metadata.
"""

import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from holdfast.cli.client import digests
from holdfast.cli.client.address import Remote
from holdfast.cli.client.connection import PIECE_BYTES, Connection, read_body
from holdfast.cli.client.crew import Crew
from holdfast.cli.client.digests import Expected
from holdfast.cli.client.landing import InTheWay, local_error, part_path, stale_parts
from holdfast.cli.client.listing import named
from holdfast.cli.client.quick import SMALL_MAX_BYTES
from holdfast.core.errors import Corrupt, Full, InvalidRequest, PreconditionFailed, Unavailable
from holdfast.core.limits import MIB

# What an interruption costs at most, for each job.
CHUNK_BYTES = 8 * MIB

# Up to here in one request, and in memory.
WHOLE_MAX_BYTES = 16 * MIB

# Connections that end within one object before it is given up; the next run goes on.
BROKEN_MAX_COUNT = 6

_DONE = b"\x01"


@dataclass(frozen=True, slots=True)
class Downloaded:
    """What came of it."""

    size: int
    etag: str
    resumed_bytes: int = 0
    """Those that an earlier run had fetched."""


@dataclass(frozen=True, slots=True)
class Downloader:
    """How objects are fetched. `advance` is told of bytes as they arrive; called from several threads."""

    connection: Connection
    crew: Crew
    advance: Callable[[int], None]

    def get_file(self, remote: Remote, target: Path, *, size: int | None = None, version_id: str = "") -> Downloaded:
        """Fetch an object to `target`, replacing what is there. `size` is what a listing said, if there was one.

        Raises our errors; of the target's own: AccessDenied, Full, InTheWay (a directory has that name).
        """
        _check_replaceable(target, remote)
        if size is not None and size <= WHOLE_MAX_BYTES:
            return self._whole(remote, target, version_id, is_small=size <= SMALL_MAX_BYTES)
        head = named(self.connection, remote, version_id)
        if int(head["ContentLength"]) <= WHOLE_MAX_BYTES:
            return self._whole(remote, target, version_id)
        for _ in range(2):
            try:
                return self._in_pieces(remote, target, head, version_id)
            except PreconditionFailed:
                head = named(self.connection, remote, version_id)  # overwritten meanwhile: the new one, then
        raise PreconditionFailed(f"{remote} is overwritten again and again: give the same command later")

    def _whole(self, remote: Remote, target: Path, version_id: str, *, is_small: bool = False) -> Downloaded:
        data, answer = self._fetch(remote, version_id, self.connection.call_small if is_small else self.connection.call)
        part = part_path(target, "whole")
        try:
            with _written(part, target) as descriptor:
                os.ftruncate(descriptor, 0)
                view = memoryview(data)
                while view:
                    view = view[os.write(descriptor, view) :]
                _land(descriptor, part, target, answer["LastModified"])
        except OSError as error:
            part.unlink(missing_ok=True)
            raise local_error(error, target) from error
        self.advance(len(data))
        return Downloaded(len(data), digests.etag_of(answer))

    def _fetch(
        self, remote: Remote, version_id: str, call: Callable[..., dict[str, Any]]
    ) -> tuple[bytes, dict[str, Any]]:
        """The whole object in memory, checked."""
        chosen = {"VersionId": version_id} if version_id else {}
        for attempt in range(BROKEN_MAX_COUNT):
            self.crew.check()
            answer = call("get_object", remote.bucket, remote.key, ChecksumMode="ENABLED", **chosen)
            length = int(answer["ContentLength"])
            if length > 2 * WHOLE_MAX_BYTES:
                answer["Body"].close()
                raise Unavailable(f"{remote} grew meanwhile: give the same command again")
            try:
                data = b"".join(read_body(answer))
            except Unavailable:
                self.connection.wait(0.1 * 2**attempt)
                continue
            if len(data) == length:
                if (expected := digests.expected_of(answer)) is not None:
                    found = expected.start()
                    found.update(data)
                    expected.check(found, str(remote))
                return data, answer
        raise Unavailable(f"{remote}: the connection ended {BROKEN_MAX_COUNT} times within it: try again")

    def _in_pieces(self, remote: Remote, target: Path, head: dict[str, Any], version_id: str) -> Downloaded:
        size, etag = int(head["ContentLength"]), digests.etag_of(head)
        if not etag:
            raise InvalidRequest(f"{remote}: the server gives no ETag, by which pieces of one object are held together")
        expected = self._expected(remote, head, version_id)
        identity = "\0".join((self.connection.endpoint, str(remote), version_id, etag, str(size), str(CHUNK_BYTES)))
        part = part_path(target, identity)
        source = Source(self.connection, remote, etag, version_id, size)
        try:
            with _written(part, target) as descriptor:
                pieces = _Pieces(descriptor, size)
                pieces.prepare(part, keep=expected is not None)
                resumed = self._fill(source, pieces)
                if expected is not None and not pieces.come_to(expected, remote, may_fail=resumed > 0):
                    pieces.forget()
                    self.advance(-size)
                    self._fill(source, pieces)
                    resumed = 0
                    pieces.come_to(expected, remote, may_fail=False)
                os.ftruncate(descriptor, size)
                _land(descriptor, part, target, head["LastModified"])
        except OSError as error:
            raise local_error(error, target) from error
        for stale in stale_parts(target):
            stale.unlink(missing_ok=True)
        return Downloaded(size, etag, resumed)

    def _expected(self, remote: Remote, head: dict[str, Any], version_id: str) -> Expected | None:
        expected = digests.expected_of(head)
        if expected is not None or "-" not in digests.etag_of(head):
            return expected
        chosen = {"VersionId": version_id} if version_id else {}
        first = self.connection.call("head_object", remote.bucket, remote.key, PartNumber=1, **chosen)
        return digests.expected_of_parts(head, first, int(head["ContentLength"]))

    def _fill(self, source: "Source", pieces: "_Pieces") -> int:
        """Fetch what is missing; the bytes that were there."""
        missing = pieces.missing()
        there = pieces.size - sum(pieces.length(number) for number in missing)
        self.advance(there)

        def fetch(number: int) -> None:
            offset = number * CHUNK_BYTES
            for data in source.read(offset, offset + pieces.length(number), self.crew):
                pieces.write(data, offset)
                offset += len(data)
                self.advance(len(data))
            pieces.mark(number)

        for _ in self.crew.parts(missing, fetch):
            pass
        return there


@dataclass(frozen=True, slots=True)
class Source:
    """One version of an object, read by ranges."""

    connection: Connection
    remote: Remote
    etag: str
    version_id: str
    size: int

    def read(self, start: int, end: int, crew: Crew | None = None) -> Iterator[bytes]:
        """The bytes of [start, end), whatever happens to connections. Raises PreconditionFailed when overwritten."""
        chosen = {"VersionId": self.version_id} if self.version_id else {}
        broken = 0
        while start < end:
            if crew is not None:
                crew.check()
            answer = self.connection.call(
                "get_object", self.remote.bucket, self.remote.key,
                Range=f"bytes={start}-{end - 1}", IfMatch=f'"{self.etag}"', **chosen,
            )  # fmt: skip
            if not str(answer.get("ContentRange", "")).startswith(f"bytes {start}-"):
                answer["Body"].close()
                raise InvalidRequest(f"{self.remote}: the server does not answer ranges, which large objects need")
            try:
                for piece in read_body(answer):
                    start += len(piece)
                    if start > end:
                        raise Corrupt(f"{self.remote}: the server sends more than was asked for")
                    yield piece
            except Unavailable:
                pass
            if start < end:
                broken += 1
                if broken == BROKEN_MAX_COUNT:
                    raise Unavailable(
                        f"{self.remote}: the connection ended {broken} times within it: the same command goes on there"
                    )
                self.connection.wait(0.1 * 2**broken)


class _Pieces:
    """A part file: the object's bytes, and behind them a byte for each piece."""

    def __init__(self, descriptor: int, size: int) -> None:
        self.size = size
        self._descriptor = descriptor
        self._count = -(-size // CHUNK_BYTES)

    def prepare(self, path: Path, *, keep: bool) -> None:
        """Make it as long as it will be. Raises Full before anything is fetched that has no room."""
        whole = self.size + self._count
        status = os.fstat(self._descriptor)
        if status.st_size != whole or not keep:
            os.ftruncate(self._descriptor, 0)
            os.ftruncate(self._descriptor, whole)
            status = os.fstat(self._descriptor)
        room = os.fstatvfs(self._descriptor)
        needed, free = whole - 512 * status.st_blocks, room.f_bavail * room.f_frsize
        if needed > free:
            raise Full(f"{path.parent}: {needed:,} more bytes are needed and {free:,} are free: make room first")

    def length(self, number: int) -> int:
        return min(CHUNK_BYTES, self.size - number * CHUNK_BYTES)

    def missing(self) -> list[int]:
        marks = os.pread(self._descriptor, self._count, self.size)
        return [number for number in range(self._count) if marks[number : number + 1] != _DONE]

    def write(self, data: bytes, offset: int) -> None:
        done = 0
        while done < len(data):
            done += os.pwrite(self._descriptor, memoryview(data)[done:], offset + done)

    def mark(self, number: int) -> None:
        """The piece is there. Written behind it: a kill cannot leave the mark without the bytes. A power cut may,
        which the check of the whole finds."""
        os.pwrite(self._descriptor, _DONE, self.size + number)

    def forget(self) -> None:
        os.pwrite(self._descriptor, bytes(self._count), self.size)

    def come_to(self, expected: Expected, remote: Remote, *, may_fail: bool) -> bool:
        """Whether all bytes come to what was expected. Raises Corrupt when they do not, unless it may fail."""
        found = expected.start()
        buffer = bytearray(PIECE_BYTES)
        for offset in range(0, self.size, PIECE_BYTES):
            view = memoryview(buffer)[: min(PIECE_BYTES, self.size - offset)]
            filled = 0
            while filled < len(view):
                count = os.preadv(self._descriptor, [view[filled:]], offset + filled)
                if not count:
                    raise Corrupt(f"{remote}: somebody made its part file shorter")
                filled += count
            found.update(view)
        try:
            expected.check(found, str(remote))
        except Corrupt:
            self.forget()
            if not may_fail:
                raise
            return False
        return True


def _check_replaceable(target: Path, remote: Remote) -> None:
    try:
        mode = target.lstat().st_mode
    except OSError:
        return  # not there; or it fails when it is written, with the right words
    if stat.S_ISDIR(mode):
        raise InTheWay(f"{target} is a directory, and {remote} an object: name another target")
    if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
        raise InTheWay(f"{target} is a device or a pipe, which is not replaced: write to `-` and redirect that")


@contextmanager
def _written(part: Path, target: Path) -> Iterator[int]:
    """The part file, locked: whoever else fetches the same is told so. Raises Unavailable, OSError."""
    while True:
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Unavailable(f"{target}: another command is fetching it now: let it, or stop it first") from None
            if not _is_at(descriptor, part):
                continue  # its last holder has just renamed it: it is the target now, and not to be touched
            yield descriptor
            return
        finally:
            os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        there = path.stat(follow_symlinks=False)
    except FileNotFoundError:
        return False
    here = os.fstat(descriptor)
    return (here.st_ino, here.st_dev) == (there.st_ino, there.st_dev)


def _land(descriptor: int, part: Path, target: Path, modified: datetime) -> None:
    """Synced, so that a power cut leaves the old file or the new one; dated as the object; then renamed."""
    os.fdatasync(descriptor)
    stamp = int(modified.timestamp()) * 1_000_000_000
    os.utime(descriptor, ns=(stamp, stamp))
    part.replace(target)
