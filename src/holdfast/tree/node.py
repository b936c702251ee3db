"""Inner nodes: up to FANOUT children in columns, in two parts for two kinds of readers. docs/formats/tree.md.

    walk part   version, level, count | ends | sealed lengths | codes | ids | walk keys, where children are nodes
    read part   the children's keys, sealed under one KDF of R, bound to the walk part
    zeroes      up to the seal's padding

The whole is sealed as a block, uncompressed, under a KDF of W. Its plain length is its sealed length less the seal's
overhead, so a ref alone suffices to open it.

Invariants, each checked when a node is opened: the level is one less than its parent's; ends grow strictly and the
last is the size that the parent gives; a data block is no longer than BLOCK_MAX_BYTES; there is one encoding.
"""

import struct
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from holdfast.core.errors import Corrupt
from holdfast.core.ids import BLOCK_ID_BYTES, BlockId, Buffer
from holdfast.core.limits import BLOCK_MAX_BYTES, SEALED_BLOCK_MAX_BYTES
from holdfast.crypto import once
from holdfast.crypto.blocks import OVERHEAD_BYTES, BlockSealer, padded_length
from holdfast.crypto.derive import KEY_BYTES, Context, derive
from holdfast.erasure.code import BlockRef, Code
from holdfast.tree.entry import DEPTH_MAX, decode_code, encode_code, walk_key

VERSION = 1

# Three levels of 1,024 over blocks of a mebibyte hold a pebibyte, and a node is read in one go: about 80 KiB.
FANOUT = 1024

_HEADER = struct.Struct("<BBH")
_END_BYTES = 8
_LENGTH_BYTES = 4
_CODE_BYTES = 3


@dataclass(frozen=True, slots=True)
class Child:
    """A stored subtree: what its parent has to know."""

    ref: BlockRef
    level: int
    """0 for a data block."""
    start: int
    """First plain byte below it, in the whole tree."""
    length: int
    """Plain bytes below it."""
    key: bytes = field(repr=False)
    """A data block's key, or a node's read key R."""


def seal_node(sealer: BlockSealer, key: bytes, children: Sequence[Child]) -> bytes:
    """The sealed block of the node over `children`, which follow each other; `key` is its fresh read key R."""
    level = children[0].level + 1
    start = children[0].start
    count = len(children)
    assert 1 <= count <= FANOUT
    assert 1 <= level <= DEPTH_MAX
    assert all(one.start + one.length == after.start for one, after in pairwise(children))
    columns = [
        _HEADER.pack(VERSION, level, count),
        struct.pack(f"<{count}Q", *(child.start + child.length - start for child in children)),
        struct.pack(f"<{count}I", *(child.ref.length for child in children)),
        *(encode_code(child.ref.code) for child in children),
        *(child.ref.id for child in children),
    ]
    if level > 1:
        columns += [walk_key(child.key) for child in children]
    walk_part = b"".join(columns)
    keys = b"".join(child.key for child in children)
    read_part = once.seal_once(derive(key, Context.NODE_READ_PART), keys, walk_part)
    length = len(walk_part) + len(read_part)
    plain = walk_part + read_part + bytes(padded_length(length) - length)
    return sealer.seal(derive(walk_key(key), Context.NODE_BLOCK), plain, compress=False)


class Node:
    """An opened walk part. Entries are decoded as they are asked for."""

    __slots__ = ("_codes", "_ids", "_lengths", "_read_part", "_walk_keys", "_walk_part", "ends", "level")

    def __init__(self, plain: bytes) -> None:
        """Raises Corrupt when `plain` is not a node's one encoding."""
        if len(plain) < _HEADER.size:
            raise Corrupt("a node is cut short")
        version, self.level, count = _HEADER.unpack_from(plain)
        if version != VERSION or not 1 <= self.level <= DEPTH_MAX or not 1 <= count <= FANOUT:
            raise Corrupt(f"a node of version {version}, level {self.level}, with {count} children")
        at = _HEADER.size
        columns = []
        walk_key_bytes = KEY_BYTES if self.level > 1 else 0
        for width in (_END_BYTES, _LENGTH_BYTES, _CODE_BYTES, BLOCK_ID_BYTES, walk_key_bytes):
            columns.append(plain[at : at + width * count])
            at += width * count
        end = at + KEY_BYTES * count + once.OVERHEAD_BYTES
        if len(plain) != padded_length(end) or any(plain[end:]):
            raise Corrupt("a node has another length than its children need")
        self._walk_part = plain[:at]
        self._read_part = plain[at:end]
        self.ends: tuple[int, ...] = struct.unpack(f"<{count}Q", columns[0])
        """Plain bytes from the node's start to each child's end."""
        self._lengths: tuple[int, ...] = struct.unpack(f"<{count}I", columns[1])
        self._codes = _decode_codes(columns[2])
        self._ids = columns[3]
        self._walk_keys = columns[4]
        self._check()

    def __len__(self) -> int:
        return len(self.ends)

    def start(self, index: int) -> int:
        """Plain bytes from the node's start to the child's."""
        return self.ends[index - 1] if index else 0

    def length(self, index: int) -> int:
        """Plain bytes of a child."""
        return self.ends[index] - self.start(index)

    def ref(self, index: int) -> BlockRef:
        at = index * BLOCK_ID_BYTES
        return BlockRef(BlockId(self._ids[at : at + BLOCK_ID_BYTES]), self._codes[index], self._lengths[index])

    def walk_key(self, index: int) -> bytes:
        """W of a child that is a node."""
        assert self.level > 1
        return self._walk_keys[index * KEY_BYTES : (index + 1) * KEY_BYTES]

    def covering(self, offset: int) -> int:
        """The child that holds plain byte `offset`, counted from the node's start."""
        return bisect_right(self.ends, offset)

    def keys(self, read_key: bytes) -> bytes:
        """The children's keys, KEY_BYTES each, one after the other. Raises Corrupt."""
        keys = once.open_once(derive(read_key, Context.NODE_READ_PART), self._read_part, self._walk_part)
        assert len(keys) == KEY_BYTES * len(self)
        return keys

    def _check(self) -> None:
        lengths = [end - start for start, end in pairwise((0, *self.ends))]
        if min(lengths) < 1:
            raise Corrupt("a node's ends do not grow")
        if self.level == 1 and max(lengths) > BLOCK_MAX_BYTES:
            raise Corrupt("a node names a data block of impossible length")
        if min(self._lengths) < 1 or max(self._lengths) > SEALED_BLOCK_MAX_BYTES:
            raise Corrupt("a node names a sealed block of impossible length")


def open_node(sealer: BlockSealer, walk_key: bytes, sealed: Buffer, *, level: int, size: int) -> Node:
    """The node of a sealed block, of the level and with the plain bytes that its parent gives. Raises Corrupt."""
    if len(sealed) < OVERHEAD_BYTES:
        raise Corrupt("a sealed node is cut short")
    node = Node(sealer.open(derive(walk_key, Context.NODE_BLOCK), sealed, len(sealed) - OVERHEAD_BYTES))
    if node.level != level or node.ends[-1] != size:
        raise Corrupt(f"a node of level {node.level} over {node.ends[-1]} bytes, where {level} and {size} belong")
    return node


def _decode_codes(column: bytes) -> list[Code]:
    """One `Code` object for each code, however many children share it: mostly all do."""
    if column == column[:_CODE_BYTES] * (len(column) // _CODE_BYTES):
        return [decode_code(column[:_CODE_BYTES])] * (len(column) // _CODE_BYTES)
    known: dict[bytes, Code] = {}
    codes = []
    for at in range(0, len(column), _CODE_BYTES):
        encoded = column[at : at + _CODE_BYTES]
        code = known.get(encoded)
        if code is None:
            code = known[encoded] = decode_code(encoded)
        codes.append(code)
    return codes
