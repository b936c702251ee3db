"""What one fragment may measure: checked before anything is written, the same by every drive."""

from holdfast.core.errors import InvalidRequest
from holdfast.core.ids import BLOCK_ID_BYTES
from holdfast.core.limits import FRAGMENTS_MAX_COUNT, KIB, LEAF_BYTES, SEALED_BLOCK_MAX_BYTES
from holdfast.drives.interface import TAG_MAX_BYTES, Fragment

# A commitment lists at most FRAGMENTS_MAX_COUNT hashes and a few numbers.
COMMITMENT_MAX_BYTES = FRAGMENTS_MAX_COUNT * 32 + KIB

# A copy holds the whole sealed block; the coder may pad it to a multiple of its word.
PAYLOAD_MAX_BYTES = SEALED_BLOCK_MAX_BYTES + 4 * KIB

LEAF_HASH_BYTES = 32
LEAVES_MAX_BYTES = -(-PAYLOAD_MAX_BYTES // LEAF_BYTES) * LEAF_HASH_BYTES

# Two bytes hold it, in the record and in the index. Codes need FRAGMENTS_MAX_COUNT of them.
FRAGMENT_INDEX_MAX = 0xFFFF


def check_fragment_limits(fragment: Fragment) -> None:
    """Raises InvalidRequest for a fragment that no record can hold."""
    block, index = fragment.key
    if len(block) != BLOCK_ID_BYTES or not 0 <= index <= FRAGMENT_INDEX_MAX:
        raise InvalidRequest(f"not a fragment key: block id of {len(block)} bytes, index {index}")
    for what, value, limit in (
        ("commitment", fragment.commitment, COMMITMENT_MAX_BYTES),
        ("list of leaves", fragment.leaves, LEAVES_MAX_BYTES),
        ("tag", fragment.tag, TAG_MAX_BYTES),
        ("payload", fragment.payload, PAYLOAD_MAX_BYTES),
    ):
        if len(value) > limit:
            raise InvalidRequest(f"the fragment's {what} has {len(value)} bytes; the limit is {limit}")
