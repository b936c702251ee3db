"""The chunk list of a large file, and under which id it lies: docs/formats/chunk-list.md.

A file that is longer than `CHUNK_BYTES` is stored as chunks, each a blob under its own SHA-1, and a list of them. The
list lies under an id that is made of the file's, so the file's id alone finds it, and nothing lies under the file's id
itself: a server that knows nothing of chunks answers 404, and never hands out the list as the file.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.core.errors import Corrupt
from holdfast.core.limits import KIB, MIB

# The seed's proposal. It never changes: the same file must always give the same list, since ids are immutable.
CHUNK_BYTES = 128 * MIB

# A chunk's line: SHA-1, a blank, its size, and the end.
ENTRY_BYTES = 51

# Lists are held in memory. This one is of a file of 2.5 TiB.
LIST_MAX_BYTES = 1024 * KIB

# No SHA-1 starts with it, and it is made of what ids are made of.
LIST_PREFIX = "chunklist"

_MAGIC = "sos chunk list 1"
_FILE_ID = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Chunk:
    id: str
    size: int


@dataclass(frozen=True, slots=True)
class ChunkList:
    """What a large file is made of."""

    id: str
    """The file's: SHA-1 of all its bytes."""
    chunks: Sequence[Chunk]

    @property
    def size(self) -> int:
        return sum(chunk.size for chunk in self.chunks)

    def encode(self) -> bytes:
        lines = [_MAGIC, f"{self.id} {self.size}", *(f"{chunk.id} {chunk.size}" for chunk in self.chunks)]
        text = "".join(f"{line}\n" for line in lines).encode("ascii")
        return text + f"sha256 {hashlib.sha256(text).hexdigest()}\n".encode("ascii")

    @classmethod
    def decode(cls, data: bytes, file_id: str) -> "ChunkList":
        """The list of that file. Raises Corrupt."""
        text, _, last = data.removesuffix(b"\n").rpartition(b"\n")
        if last != b"sha256 " + hashlib.sha256(text + b"\n").hexdigest().encode("ascii"):
            raise Corrupt(f"the chunk list of {file_id} is damaged")
        try:
            magic, whole, *rest = text.decode("ascii").split("\n")
            chunks = [Chunk(*_entry(line)) for line in rest]
            found, size = _entry(whole)
        except ValueError as error:
            raise Corrupt(f"the chunk list of {file_id} cannot be read: {error}") from None
        made = cls(found, chunks)
        if magic != _MAGIC or found != file_id or size != made.size or not chunks:
            raise Corrupt(f"this is not the chunk list of {file_id}")
        return made


def _entry(line: str) -> tuple[str, int]:
    name, _, size = line.partition(" ")
    if not is_file_id(name) or not size.isdigit():
        raise ValueError(f"{line!r} is no entry")
    return name, int(size)


def list_id(file_id: str) -> str:
    """Where the chunk list of a file lies."""
    return LIST_PREFIX + file_id


def is_file_id(id: str) -> bool:
    """Whether this is the SHA-1 of what it names, as every id is that an API server gave out."""
    return bool(_FILE_ID.fullmatch(id))


def listed_file(id: str) -> str | None:
    """The file whose chunk list lies under this id; None when it is no such id."""
    file_id = id.removeprefix(LIST_PREFIX)
    return file_id if file_id != id and is_file_id(file_id) else None
