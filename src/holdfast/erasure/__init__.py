"""Copies and k+m codes, and the commitment that names a block by its fragments. Pure: bytes in, bytes out."""

from holdfast.erasure.block import CodedBlock, Room, code_for, decode, encode, rebuild
from holdfast.erasure.code import BlockRef, Code, Matrix, copies, erasure
from holdfast.erasure.commitment import (
    Commitment,
    block_id,
    check_fragment,
    decode_commitment,
    leaf_hashes,
    merkle_root,
    open_commitment,
    payload_bytes,
)

__all__ = [
    "BlockRef",
    "Code",
    "CodedBlock",
    "Commitment",
    "Matrix",
    "Room",
    "block_id",
    "check_fragment",
    "code_for",
    "copies",
    "decode",
    "decode_commitment",
    "encode",
    "erasure",
    "leaf_hashes",
    "merkle_root",
    "open_commitment",
    "payload_bytes",
    "rebuild",
]
