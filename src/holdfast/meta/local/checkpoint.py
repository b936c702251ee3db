"""Checkpoints: every row at one position of the log, in one file. docs/formats/log.md.

Rules. A checkpoint is written beside its name, synced and renamed, so a file that has the name is whole, or has
rotted since: each block's hash covers the block and the hash before it, from the header on, so nothing can be changed,
moved or cut off unseen. Rows are in key order and never decoded further: values stay sealed. A backup of the store's
metadata is a checkpoint.
"""

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
from blake3 import blake3

from holdfast.core.disk import Disk, File
from holdfast.core.errors import Corrupt
from holdfast.core.ids import RANDOM_ID_BYTES, Buffer, StoreId
from holdfast.core.limits import ROW_KEY_MAX_BYTES, ROW_VALUE_MAX_BYTES
from holdfast.meta.local.log import HASH_BYTES, Position, decode_position, encode_position

MAGIC = b"HFC1"
PREFIX = "checkpoint-"
_POSITION_BYTES = 64
_HEADER_BYTES = len(MAGIC) + RANDOM_ID_BYTES + _POSITION_BYTES + HASH_BYTES
_BLOCK = struct.Struct("<I32s")

# A block ends with the row that takes it past this: large enough that its 36 bytes and its hash cost nothing.
BLOCK_BYTES = 256 * 1024
# A block that was just short of it and then took the largest row; msgpack adds less than half to the smallest rows.
BLOCK_MAX_BYTES = 2 * BLOCK_BYTES + ROW_KEY_MAX_BYTES + ROW_VALUE_MAX_BYTES

RawRow = tuple[bytes, bytes]
"""A row's key, and its token and value in one."""

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[tuple[bytes, bytes]])


def checkpoint_name(sequence: int) -> str:
    return f"{PREFIX}{sequence:016x}"


def checkpoint_numbers(names: Sequence[str]) -> list[int]:
    """The checkpoints among a directory's names, newest first."""
    tails = [name.removeprefix(PREFIX) for name in names if name.startswith(PREFIX)]
    found = [int(tail, 16) for tail in tails if len(tail) == 16 and not set(tail) - set("0123456789abcdef")]
    return sorted(found, reverse=True)


def encode_checkpoint(store: StoreId, position: Position, rows: Iterable[RawRow]) -> Iterator[bytes]:
    """A checkpoint's bytes, a block at a time."""
    head = MAGIC + store + encode_position(position)
    chain = blake3(head).digest()
    yield head + chain
    block: list[RawRow] = []
    size = 0
    for row in rows:
        block.append(row)
        size += len(row[0]) + len(row[1])
        if size >= BLOCK_BYTES:
            data = _encoder.encode(block)
            chain = blake3(chain).update(data).digest()
            yield _BLOCK.pack(len(data), chain) + data
            block, size = [], 0
    if block:
        data = _encoder.encode(block)
        chain = blake3(chain).update(data).digest()
        yield _BLOCK.pack(len(data), chain) + data
    yield _BLOCK.pack(0, blake3(chain + b"end").digest())


def write_checkpoint(disk: Disk, path: Path, blocks: Iterable[bytes]) -> None:
    """Write one checkpoint to a file. Raises OSError, and leaves nothing then."""
    [failure] = _write_files(disk, [path], blocks).values()
    if failure is not None:
        raise failure


def write_checkpoints(disk: Disk, directories: Sequence[Path], sequence: int, blocks: Iterable[bytes]) -> list[Path]:
    """Write one checkpoint into several directories at once; which of them have it on stable storage."""
    name = checkpoint_name(sequence)
    outcomes = _write_files(disk, [directory / name for directory in directories], blocks)
    return [path.parent for path, failure in outcomes.items() if failure is None]


def _write_files(disk: Disk, paths: Sequence[Path], blocks: Iterable[bytes]) -> dict[Path, OSError | None]:
    """Write the same bytes to several files, each whole or not at all; what became of each."""
    writers = [_Writer(disk, path) for path in paths]
    try:
        for writer in writers:
            writer.attempt(writer.begin)
        for block in blocks:
            for writer in writers:
                writer.attempt(partial(writer.write, block))
        for writer in writers:
            writer.attempt(writer.finish)
    finally:
        for writer in writers:
            writer.close()
    return {writer.path: writer.failure for writer in writers}


class _Writer:
    """A file that gets its name when it is whole."""

    def __init__(self, disk: Disk, path: Path) -> None:
        self.path = path
        self.failure: OSError | None = None
        self._disk = disk
        self._unfinished = path.with_name(f"{path.name}.new")
        self._file: File | None = None
        self._offset = 0
        self._finished = False

    def attempt(self, action: Callable[[], None]) -> None:
        """Do something, unless something failed before."""
        if self.failure is None:
            try:
                action()
            except OSError as error:
                self.failure = error

    def begin(self) -> None:
        self._file = self._disk.open(self._unfinished, create=True)
        self._file.truncate(0)

    def write(self, block: bytes) -> None:
        assert self._file is not None
        self._file.write((block,), self._offset)
        self._offset += len(block)

    def finish(self) -> None:
        assert self._file is not None
        self._file.sync()
        self._disk.rename(self._unfinished, self.path)
        self._disk.sync_directory(self.path.parent)
        self._finished = True

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            if not self._finished:
                with suppress(OSError):
                    self._disk.unlink(self._unfinished)


@dataclass(frozen=True, slots=True)
class Head:
    """How a checkpoint begins."""

    store: StoreId
    position: Position


class CheckpointReader:
    """A checkpoint, read and verified from front to back."""

    def __init__(self, disk: Disk, path: Path) -> None:
        self._file = disk.open(path)
        self._offset = 0
        self._chain = b""

    def close(self) -> None:
        self._file.close()

    def _read(self, length: int) -> bytes:
        buffer = bytearray(length)
        if self._file.read_into(memoryview(buffer), self._offset) < length:
            raise Corrupt("a checkpoint ends too early")
        self._offset += length
        return bytes(buffer)

    def head(self) -> Head:
        """Raises Corrupt, OSError."""
        raw = self._read(_HEADER_BYTES)
        head, self._chain = raw[:-HASH_BYTES], raw[-HASH_BYTES:]
        if not head.startswith(MAGIC) or blake3(head).digest() != self._chain:
            raise Corrupt("not a checkpoint")
        store = StoreId(head[len(MAGIC) : len(MAGIC) + RANDOM_ID_BYTES])
        return Head(store, decode_position(head[-_POSITION_BYTES:]))

    def blocks(self) -> Iterator[list[RawRow]]:
        """The rows, after `head`. Raises Corrupt (also behind the last of them: nothing counts before the end)."""
        last = b""
        while True:
            length, chain = _BLOCK.unpack(self._read(_BLOCK.size))
            if length == 0:
                if blake3(self._chain + b"end").digest() != chain:
                    raise Corrupt("a checkpoint's end is damaged")
                return
            if length > BLOCK_MAX_BYTES:
                raise Corrupt("a checkpoint's block is too long")
            data = self._read(length)
            if blake3(self._chain).update(data).digest() != chain:
                raise Corrupt("a checkpoint's block is damaged")
            self._chain = chain
            rows = decode_block(data)
            for key, _ in rows:
                if key <= last:
                    raise Corrupt("a checkpoint's rows are out of order")
                last = key
            yield rows


def decode_block(data: Buffer) -> list[RawRow]:
    """Raises Corrupt."""
    try:
        rows = _decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise Corrupt("a checkpoint's block is not well formed") from error
    for key, raw in rows:
        if not 0 < len(key) <= ROW_KEY_MAX_BYTES:
            raise Corrupt("a checkpoint holds a key beyond the limits")
        if not RANDOM_ID_BYTES <= len(raw) <= RANDOM_ID_BYTES + ROW_VALUE_MAX_BYTES:
            raise Corrupt("a checkpoint holds a value beyond the limits")
    return rows
