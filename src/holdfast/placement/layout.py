"""The layout: a versioned document of a group's drives, from which every placement follows.

Rules.
- A layout never changes. Its successor has the next version and names its hash: one chain, and a fork shows.
- Drives that left stay in the document as GONE, with when they came and went: the table replays the comings and goings
  to keep every fragment that need not move where it is.
- A drive's places are drawn from its `seat`. A replacement takes over the seat of what it replaces, and with it
  exactly its places.
- The signature is Ed25519 by the group's key over `signed_bytes`; it is opaque here, and empty while a store lives on
  one machine.

docs/formats/layout.md spells the bytes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Annotated

import msgspec
from blake3 import blake3

from holdfast.core.errors import Corrupt, InvalidRequest
from holdfast.core.ids import RANDOM_ID_BYTES, Buffer, DriveId

FORMAT_VERSION = 1
HASH_BYTES = 32
SIGNATURE_BYTES = 64
HASH_KEY = blake3(b"holdfast v1 layout").digest()

# A table entry per partition and drive: beyond this, building tables in plain Python takes many seconds.
DRIVES_MAX_COUNT = 1024

# Names of zones and nodes are for people and for comparing.
NAME_MAX_BYTES = 64

# 8 PiB: still exact as a float, and the sum of as many as there may be stays below 2**63.
WEIGHT_MAX_BYTES = 2**53


class State(StrEnum):
    """What a drive is used for."""

    ACTIVE = "active"
    """Read and written."""
    DRAINING = "draining"
    """Still read through older layouts; nothing new goes there."""
    GONE = "gone"
    """Not used at all, kept for its place in the history."""


@dataclass(frozen=True, slots=True)
class LayoutDrive:
    """A drive as the layout sees it."""

    id: DriveId
    weight: int
    """Capacity, bytes: what the drive is given is in proportion to it."""
    node: str
    zone: str = ""
    state: State = State.ACTIVE
    seat: bytes = b""
    """What its places are drawn from, RANDOM_ID_BYTES; its own id unless it replaced another drive."""
    since: int = 0
    """Version of the layout in which it was first active; 0 until a layout takes the drive in."""
    until: int = 0
    """Version of the layout in which it stopped being active; 0 while it is."""

    @property
    def is_active(self) -> bool:
        return self.state is State.ACTIVE


@dataclass(frozen=True, slots=True)
class Layout:
    """One version. `drives` are sorted by id. Raises InvalidRequest when made with what contradicts itself."""

    version: int
    previous: bytes
    """`hash` of the version before; zeroes in version 1."""
    drives: tuple[LayoutDrive, ...]
    signature: bytes = b""

    def __post_init__(self) -> None:
        if self.version < 1 or len(self.previous) != HASH_BYTES or (self.version == 1) != (not any(self.previous)):
            raise InvalidRequest(f"layout {self.version} does not follow from one before")
        if len(self.signature) not in (0, SIGNATURE_BYTES):
            raise InvalidRequest(f"a signature of {len(self.signature)} bytes")
        ids = [drive.id for drive in self.drives]
        if ids != sorted(set(ids)) or len(ids) > DRIVES_MAX_COUNT:
            raise InvalidRequest("drives must be sorted by id, each once, and not too many")
        for drive in self.drives:
            _check_drive(drive, self.version)
        seats = [drive.seat for drive in self.drives if drive.is_active]
        if len(seats) != len(set(seats)):
            raise InvalidRequest("two active drives in one seat")

    @property
    def active(self) -> tuple[LayoutDrive, ...]:
        return tuple(drive for drive in self.drives if drive.is_active)

    @property
    def hash(self) -> bytes:
        """What the next version names as `previous`: over all but the signature."""
        return blake3(self.signed_bytes(), key=HASH_KEY).digest()

    def signed_bytes(self) -> bytes:
        """What the group's key signs: the document with an empty signature."""
        return encode_layout(replace(self, signature=b""))


def _check_drive(drive: LayoutDrive, version: int) -> None:
    if len(drive.id) != RANDOM_ID_BYTES or len(drive.seat) != RANDOM_ID_BYTES:
        raise InvalidRequest("ids and seats of drives are of a fixed length")
    if not 0 < drive.weight <= WEIGHT_MAX_BYTES:
        raise InvalidRequest(f"drive {drive.id.hex()} has a weight of {drive.weight} bytes")
    if not drive.node or max(len(drive.node.encode()), len(drive.zone.encode())) > NAME_MAX_BYTES:
        raise InvalidRequest(f"drive {drive.id.hex()} needs a node, and names have at most {NAME_MAX_BYTES} bytes")
    in_order = 0 < drive.since <= version and (drive.is_active or drive.since < drive.until <= version)
    if not in_order or (drive.is_active and drive.until):
        raise InvalidRequest(f"drive {drive.id.hex()}, {drive.state}, from {drive.since} until {drive.until}")


def first_layout(drives: Iterable[LayoutDrive]) -> Layout:
    """Version 1 of a new store."""
    taken = (replace(drive, seat=drive.seat or bytes(drive.id), since=1) for drive in drives)
    return Layout(1, bytes(HASH_BYTES), tuple(sorted(taken, key=lambda drive: drive.id)))


def _next(layout: Layout, drives: Iterable[LayoutDrive]) -> Layout:
    return Layout(layout.version + 1, layout.hash, tuple(sorted(drives, key=lambda drive: drive.id)))


def find(layout: Layout, drive: DriveId) -> LayoutDrive:
    """A drive of the layout. Raises InvalidRequest when it is not in it."""
    for entry in layout.drives:
        if entry.id == drive:
            return entry
    raise InvalidRequest(f"no drive {drive.hex()} in layout {layout.version}")


def add(layout: Layout, drives: Sequence[LayoutDrive]) -> Layout:
    """The next version, with further drives."""
    version = layout.version + 1
    taken = [replace(drive, seat=drive.seat or bytes(drive.id), since=version, until=0) for drive in drives]
    return _next(layout, [*layout.drives, *taken])


def retire(layout: Layout, drive: DriveId, state: State) -> Layout:
    """The next version, with a drive DRAINING or GONE."""
    entry, version = find(layout, drive), layout.version + 1
    if entry.state is state or state is State.ACTIVE or entry.state is State.GONE:
        raise InvalidRequest(f"drive {drive.hex()} is {entry.state}: it cannot become {state}")
    changed = replace(entry, state=state, until=entry.until or version)
    return _next(layout, [changed if other is entry else other for other in layout.drives])


def restore(layout: Layout, drive: DriveId) -> Layout:
    """The next version, with a DRAINING drive active again, in the places it had."""
    entry = find(layout, drive)
    if entry.state is not State.DRAINING:
        raise InvalidRequest(f"drive {drive.hex()} is {entry.state}, not draining")
    changed = replace(entry, state=State.ACTIVE, until=0)
    return _next(layout, [changed if other is entry else other for other in layout.drives])


def replace_drive(layout: Layout, old: DriveId, new: LayoutDrive) -> Layout:
    """The next version, with `new` in the seat of `old`, which is gone: of equal weight, only what `old` held moves."""
    entry = find(layout, old)
    if entry.state is State.GONE:
        raise InvalidRequest(f"drive {old.hex()} is gone already")
    heir = replace(new, seat=entry.seat, since=layout.version + 1, until=0)
    gone = replace(entry, state=State.GONE, until=entry.until or layout.version + 1)
    return _next(layout, [heir, *(gone if other is entry else other for other in layout.drives)])


# --- bytes -----------------------------------------------------------------------------------------------------------

_Id = Annotated[bytes, msgspec.Meta(min_length=RANDOM_ID_BYTES, max_length=RANDOM_ID_BYTES)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_STATES = {State.ACTIVE: 0, State.DRAINING: 1, State.GONE: 2}


class _DriveRow(msgspec.Struct, array_like=True, frozen=True):
    id: _Id
    weight: _Count
    node: str
    zone: str
    state: _Count
    seat: _Id
    since: _Count
    until: _Count


class _Document(msgspec.Struct, array_like=True, frozen=True):
    format: _Count
    version: _Count
    previous: bytes
    drives: tuple[_DriveRow, ...]
    signature: bytes


_decoder = msgspec.msgpack.Decoder(_Document)


def encode_layout(layout: Layout) -> bytes:
    rows = tuple(
        _DriveRow(d.id, d.weight, d.node, d.zone, _STATES[d.state], d.seat, d.since, d.until) for d in layout.drives
    )
    return msgspec.msgpack.encode(_Document(FORMAT_VERSION, layout.version, layout.previous, rows, layout.signature))


def decode_layout(encoded: Buffer) -> Layout:
    """Parse a layout; its signature is not looked at. Raises Corrupt for whatever `encode_layout` does not make."""
    try:
        document = _decoder.decode(encoded)
        if document.format != FORMAT_VERSION:
            raise Corrupt(f"a layout of format {document.format}")
        states = list(State)
        drives = tuple(
            LayoutDrive(DriveId(r.id), r.weight, r.node, r.zone, states[r.state], r.seat, r.since, r.until)
            for r in document.drives
        )
        layout = Layout(document.version, document.previous, drives, document.signature)
    except (msgspec.DecodeError, InvalidRequest, IndexError, UnicodeDecodeError) as error:
        raise Corrupt(f"not a layout: {error}") from error
    if encode_layout(layout) != bytes(encoded):
        raise Corrupt("a layout in another than its one encoding")
    return layout
