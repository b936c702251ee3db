"""From what drives answered to a sealed block: everything is checked here, and nowhere else on the way to a reader.

Pure and blocking: about 0.3 ms for a block of 1 MiB, most of it BLAKE3, without the GIL.
"""

from collections.abc import Mapping

from msgspec import Struct

from holdfast.core.errors import Corrupt
from holdfast.core.ids import Buffer
from holdfast.drives.interface import FragmentPart
from holdfast.erasure import BlockRef, Commitment, Room, decode, open_commitment


class Proven(Struct, frozen=True):
    """What came of some fragments."""

    sealed: Buffer | None
    """The block, when k of them were good."""
    bad: Mapping[int, str]
    """Fragments that are not what was committed to, and why."""


def check_part(ref: BlockRef, index: int, part: FragmentPart) -> Commitment:
    """The block's commitment, after `part` was found to be the whole of fragment `index`. Raises Corrupt."""
    commitment = open_commitment(ref, part.commitment)
    _check_whole(commitment, index, part)
    return commitment


def _check_whole(commitment: Commitment, index: int, part: FragmentPart) -> None:
    if part.start != 0 or len(part.data) != part.length:
        raise Corrupt(f"bytes {part.start} to {part.start + len(part.data)} of {part.length} came for a whole fragment")
    commitment.check(index, part.leaves, part.start, part.data, part.length)


def prove(ref: BlockRef, parts: Mapping[int, FragmentPart], room: Room | None = None) -> Proven:
    """Check every part; if k are good, the sealed block, those pieces checked too that had to be computed.

    It is joined in `room`, if one is given, where parts may lie already. Raises Corrupt when good fragments contradict
    each other: then the block was committed to wrongly.
    """
    commitment: Commitment | None = None
    encoded = b""
    bad: dict[int, str] = {}
    for index, part in parts.items():
        try:
            if commitment is None or part.commitment != encoded:
                commitment, encoded = open_commitment(ref, part.commitment), part.commitment
            _check_whole(commitment, index, part)
        except Corrupt as error:
            bad[index] = str(error)
    good = {index: part.data for index, part in parts.items() if index not in bad}
    if len(good) < ref.code.k:
        return Proven(None, bad)
    return Proven(decode(ref, good, commitment, room), bad)
