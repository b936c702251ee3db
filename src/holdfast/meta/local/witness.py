"""The witness: a small file on every drive that says which mirrors hold the newest commits. docs/formats/witness.md.

The mirrors of an epoch all hold every commit that was acknowledged in it. Whoever starts must find the newest epoch
whichever `losses` drives are gone, and must never take an older mirror for a current one. The roster's N drives
therefore act as the acceptors of a Paxos register with uneven quorums, whose proposers take turns under a lock:

1. read the witnesses: at least N - losses of them, or refuse;
2. promise: write a number above every one seen to at least N - losses drives;
3. accept: write that number as the epoch, with its mirrors, to at least losses + 1 drives.

Any N - losses drives meet any losses + 1. So (a) a start sees the newest epoch that was accepted; (b) epochs rise in
the order in which they were proposed, even when one that was accepted by too few drives went unseen for a while,
because the promise before it was seen; (c) whoever proposes an epoch knew the newest one before it, so its mirrors
hold every commit acknowledged till then. No commit is acknowledged between a proposal that failed and the next one
that was accepted. Hence any mirror of the highest epoch that is seen holds every acknowledged commit, whether or not
enough drives accepted that epoch.

A change of the roster, too, is an epoch: it is promised and accepted by quorums of the old and of the new roster.

A drive that its operator declares lost for good is no acceptor any more: no start will ever hear it. Every other
N - losses drives of the old roster still meet the epoch when all but (lost) of its losses + 1 acceptors took it. So a
roster can be changed when as many drives are lost as the store was made for. The declaration must be true.
"""

import struct
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec
from blake3 import blake3

from holdfast.core.disk import Disk
from holdfast.core.errors import AlreadyExists, Corrupt, NotFound, Unavailable
from holdfast.core.ids import RANDOM_ID_BYTES, DriveId, StoreId

T = TypeVar("T")

MAGIC = b"HFW1"
FILE_NAME = "witness"
_HASH_BYTES = 32
_HEADER = struct.Struct("<4sI")

# What is said of a drive without a witness.
_EMPTY = "holds no metadata"

# 255 drives in roster and mirrors take under 10 KiB.
PAYLOAD_MAX_BYTES = 64 * 1024


class Witness(msgspec.Struct, array_like=True, frozen=True):
    """What one drive remembers."""

    store: bytes
    drive: bytes
    promised: int
    """No epoch up to this number will be accepted from anyone who did not promise it."""
    epoch: int
    mirrors: tuple[bytes, ...]
    roster: tuple[bytes, ...]
    losses: int
    metacopies: int
    sequence: int
    """The log had at least this many records when the epoch was proposed."""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Witness)


def encode_witness(witness: Witness) -> bytes:
    payload = _encoder.encode(witness)
    head = _HEADER.pack(MAGIC, len(payload))
    return head + payload + blake3(head + payload).digest()


def decode_witness(raw: bytes) -> Witness:
    """Raises Corrupt."""
    if len(raw) < _HEADER.size or len(raw) > _HEADER.size + PAYLOAD_MAX_BYTES + _HASH_BYTES:
        raise Corrupt("not a witness")
    magic, length = _HEADER.unpack_from(raw)
    end = _HEADER.size + length
    if magic != MAGIC or len(raw) != end + _HASH_BYTES or blake3(raw[:end]).digest() != raw[end:]:
        raise Corrupt("a witness is damaged")
    try:
        witness = _decoder.decode(raw[_HEADER.size : end])
    except msgspec.MsgspecError as error:
        raise Corrupt("a witness is not well formed") from error
    ids = (witness.store, witness.drive, *witness.mirrors, *witness.roster)
    if (
        any(len(name) != RANDOM_ID_BYTES for name in ids)
        or not set(witness.mirrors) <= set(witness.roster)
        or len(set(witness.roster)) < len(witness.roster)
    ):
        raise Corrupt("a witness contradicts itself")
    if min(witness.promised, witness.epoch, witness.losses, witness.metacopies, witness.sequence) < 0:
        raise Corrupt("a witness counts below zero")
    return witness


@dataclass(frozen=True, slots=True)
class Testimony:
    """What the drives that could be asked remember, and what became of the others."""

    witnesses: dict[DriveId, Witness]
    silent: dict[DriveId, str]
    """Why a drive's witness was not heard."""

    @property
    def newest(self) -> Witness:
        """The highest epoch that any drive accepted. There must be one."""
        return max(self.witnesses.values(), key=lambda witness: witness.epoch)

    @property
    def highest(self) -> int:
        """The highest number that any drive has seen."""
        return max(max(witness.promised, witness.epoch) for witness in self.witnesses.values())


def check_free(disk: Disk, store: StoreId, drives: Mapping[DriveId, Path]) -> None:
    """Raises AlreadyExists when one of these drives holds another store's metadata."""
    for reason in hear(disk, store, drives).silent.values():
        if "belongs to" in reason:
            raise AlreadyExists(reason)


class AtOnce(Protocol):
    """Calls several drives at the same time; what came of each."""

    def __call__(self, actions: Mapping[DriveId, Callable[[], T]]) -> Mapping[DriveId, T | OSError]: ...


def one_by_one(actions: Mapping[DriveId, Callable[[], T]]) -> Mapping[DriveId, T | OSError]:
    """`AtOnce` for who has the time."""
    outcomes: dict[DriveId, T | OSError] = {}
    for drive, action in actions.items():
        try:
            outcomes[drive] = action()
        except OSError as error:
            outcomes[drive] = error
    return outcomes


def hear(disk: Disk, store: StoreId, paths: Mapping[DriveId, Path], at_once: AtOnce = one_by_one) -> Testimony:
    """Read the witness of every drive that there is."""
    witnesses: dict[DriveId, Witness] = {}
    silent: dict[DriveId, str] = {}
    raw = at_once({drive: partial(disk.read_file, path / FILE_NAME) for drive, path in paths.items()})
    for drive, path in paths.items():
        found = raw[drive]
        if isinstance(found, FileNotFoundError):
            silent[drive] = f"{path} {_EMPTY}"
        elif isinstance(found, OSError):
            silent[drive] = f"{path} cannot be read ({found.strerror})"
        else:
            _judge(found, store, drive, path, witnesses, silent)
    return Testimony(witnesses, silent)


def _judge(
    raw: bytes,
    store: StoreId,
    drive: DriveId,
    path: Path,
    witnesses: dict[DriveId, Witness],
    silent: dict[DriveId, str],
) -> None:
    """Put what a drive remembers among the witnesses, or say why not."""
    try:
        witness = decode_witness(raw)
    except Corrupt:
        silent[drive] = f"the witness in {path} is damaged"
        return
    if witness.store != store:
        silent[drive] = f"{path} belongs to another store"
    elif witness.drive != drive:
        silent[drive] = f"{path} belongs to another drive, {witness.drive.hex()}"
    else:
        witnesses[drive] = witness


def check_quorum(testimony: Testimony, wanted: Witness) -> None:
    """Raises Unavailable, naming what is missing, unless enough of the roster was heard to prove what is newest."""
    heard = [drive for drive in wanted.roster if drive in testimony.witnesses]
    need = max(1, len(wanted.roster) - wanted.losses)
    if len(heard) >= need:
        return
    missing = [
        f"{drive.hex()} ({testimony.silent.get(DriveId(drive), 'not given')})"
        for drive in wanted.roster
        if drive not in testimony.witnesses
    ]
    raise Unavailable(
        f"cannot prove that the newest metadata is here: {len(heard)} of the store's {len(wanted.roster)} drives"
        f" answer, {need} are needed. Missing: {', '.join(missing)}. Bring back at least {need - len(heard)} of them."
    )


def hear_newest(
    disk: Disk, store: StoreId, paths: Mapping[DriveId, Path], at_once: AtOnce = one_by_one
) -> tuple[Testimony, Witness]:
    """What the drives remember, and the newest of it, proven to be so.

    Raises NotFound when no drive holds any metadata, Corrupt when no witness is whole, Unavailable as `check_quorum`.
    """
    testimony = hear(disk, store, paths, at_once)
    if not testimony.witnesses:
        reasons = "; ".join(testimony.silent.values())
        if all(reason.endswith(_EMPTY) for reason in testimony.silent.values()):
            raise NotFound(f"no metadata of this store on any drive: {reasons}")
        if any("cannot be read" in reason for reason in testimony.silent.values()):
            raise Unavailable(f"no drive says where the newest metadata is: {reasons}")
        raise Corrupt(f"no drive's witness is whole: {reasons}")
    newest = testimony.newest
    check_quorum(testimony, newest)
    return testimony, newest


def reachable_mirrors(testimony: Testimony, newest: Witness) -> list[DriveId]:
    """The mirrors of an epoch whose drives were heard. Raises Unavailable when there is none."""
    mirrors = [DriveId(drive) for drive in newest.mirrors if drive in testimony.witnesses]
    if not mirrors:
        missing = ", ".join(
            f"{drive.hex()} ({testimony.silent.get(DriveId(drive), 'not given')})" for drive in newest.mirrors
        )
        raise Unavailable(f"every mirror of the newest metadata is missing: {missing}; bring back one of them")
    return mirrors


def inherited_roster(newest: Witness, heirs: Mapping[DriveId, DriveId]) -> tuple[bytes, ...]:
    """The roster when lost drives have given their places to heirs. Raises Unavailable when it would be too short.

    An heir may have its own place already, by a change of the roster that was cut off: nobody counts twice.
    """
    roster = tuple(dict.fromkeys(heirs.get(DriveId(drive), drive) for drive in newest.roster))
    if len(roster) <= newest.losses:
        raise Unavailable(
            f"{len(roster)} drives are too few for metadata of which {newest.losses} may be lost: give each lost drive"
            " an heir that is not a drive of the store yet"
        )
    return roster


def _write(disk: Disk, paths: Mapping[DriveId, Path], witnesses: Iterable[Witness], at_once: AtOnce) -> set[bytes]:
    """Write witnesses to their drives at the same time; which drives have theirs on stable storage."""
    outcomes = at_once(
        {
            DriveId(witness.drive): partial(
                disk.replace_file, paths[DriveId(witness.drive)] / FILE_NAME, encode_witness(witness)
            )
            for witness in witnesses
        }
    )
    return {drive for drive, outcome in outcomes.items() if not isinstance(outcome, OSError)}


def _check_written(what: str, written: set[bytes], roster: Sequence[bytes], need: int) -> None:
    count = len(written & set(roster))
    if count < need:
        missing = ", ".join(drive.hex() for drive in roster if drive not in written)
        raise Unavailable(
            f"{what} was written to {count} of {need} drives: the metadata stays read-only until {missing} come back"
        )


def establish(
    disk: Disk,
    paths: Mapping[DriveId, Path],
    testimony: Testimony,
    proposal: Witness,
    at_once: AtOnce = one_by_one,
    lost: Collection[bytes] = (),
) -> Witness:
    """Promise and accept an epoch with the proposal's mirrors and roster; its number is made up here. `lost` are drives
    that will never be heard again.

    Returns what was accepted. Raises Unavailable when too few drives can be written: then nothing may be committed
    before another call succeeds. Only under the store's lock, with a testimony that was heard under it.
    """
    assert len(set(proposal.roster)) == len(proposal.roster), "a drive counts once"
    old = testimony.newest
    number = testimony.highest + 1
    drives = [DriveId(drive) for drive in dict.fromkeys((*old.roster, *proposal.roster)) if drive in paths]
    # A drive whose witness is silent (empty, foreign, damaged) is asked only when the proposal takes it in anew.
    asked = [drive for drive in drives if drive in testimony.witnesses or drive not in old.roster]
    promises = [
        msgspec.structs.replace(testimony.witnesses.get(drive, proposal), drive=drive, promised=number)
        if drive in testimony.witnesses
        else msgspec.structs.replace(old, drive=drive, promised=number, epoch=0, mirrors=())
        for drive in asked
    ]
    promised = _write(disk, paths, promises, at_once)
    for witness in (old, proposal):
        need = max(len(witness.roster) - witness.losses, 1)
        _check_written(f"epoch {number}", promised, witness.roster, need)
    accepted = msgspec.structs.replace(proposal, promised=number, epoch=number)
    written = _write(
        disk, paths, [msgspec.structs.replace(accepted, drive=drive) for drive in asked if drive in promised], at_once
    )
    for witness in (old, proposal):
        need = witness.losses + 1 - len(set(lost) & set(witness.roster))
        _check_written(f"epoch {number}", written, witness.roster, need)
    return accepted
