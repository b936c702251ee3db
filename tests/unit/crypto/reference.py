"""The formats of docs/formats/{seal,keyring,tag,entry,tree}.md, read by the page: nothing here imports the product.

Slow and short. What it opens proves that the pages say all that another implementation needs.
"""

import struct
from collections.abc import Mapping
from typing import Any

import msgspec
import zstandard
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

BLOCK = "holdfast 2026-11 block: AES-256-GCM key and commitment"
ROW = "holdfast 2026-11 metadata row: AES-256-GCM key and commitment"
READ_WRAP = "holdfast 2026-11 wrapped read key: AES-256-GCM key and commitment"
WALK_WRAP = "holdfast 2026-11 wrapped walk key: AES-256-GCM key and commitment"
TAG = "holdfast 2026-11 fragment tag: AES-256-GCM key and commitment"
KEYRING = "holdfast 2026-11 wrapped keyring: AES-256-GCM key and commitment"
WALK_KEY = "holdfast 2026-11 read key to walk key"
NODE_BLOCK = "holdfast 2026-11 walk key to node block key"
NODE_READ_PART = "holdfast 2026-11 read key to node read-part key"

NONCE = bytes(12)


def derive(key: bytes, context: str, length: int = 32) -> bytes:
    return blake3(key, derive_key_context=context).digest(length)


def padded(length: int) -> int:
    power = 1
    while power * 2 <= length:
        power *= 2
    step = max(512, power // 16)
    return max(step, (length + step - 1) // step * step)


def open_block(key: bytes, sealed: bytes, plain_length: int) -> bytes:
    version, encoding, commitment, ciphertext = sealed[0], sealed[1], sealed[2:34], sealed[34:]
    assert version == 1
    secret = derive(key, BLOCK, 64)
    assert commitment == secret[32:]
    body = AESGCM(secret[:32]).decrypt(NONCE, ciphertext, struct.pack("<BBQ", version, encoding, plain_length))
    if encoding == 0:
        assert len(body) == padded(plain_length)
        assert not any(body[plain_length:])
        return body[:plain_length]
    assert encoding == 1
    assert len(body) < padded(plain_length)
    frame = zstandard.ZstdDecompressor().decompressobj()
    plain = frame.decompress(body)
    assert len(plain) == plain_length
    assert not any(frame.unused_data)
    return plain


def open_envelope(keys: Mapping[int, bytes], context: str, sealed: bytes, associated: bytes) -> bytes:
    version, epoch, salt, commitment, nonce = struct.unpack("<BI16s16s12s", sealed[:49])
    assert version == 1
    secret = derive(keys[epoch] + salt, context, 48)
    assert commitment == secret[32:]
    return AESGCM(secret[:32]).decrypt(nonce, sealed[49:], associated)


def unwrap_keyring(kek: bytes, wrapped: bytes) -> Any:
    version, header, ciphertext, checksum = msgspec.msgpack.decode(wrapped)
    assert version == 1
    assert checksum == blake3(header + ciphertext).digest(8)
    _, salt, commitment = msgspec.msgpack.decode(header)
    secret = derive(kek + salt, KEYRING, 64)
    assert commitment == secret[32:]
    return msgspec.msgpack.decode(AESGCM(secret[:32]).decrypt(NONCE, ciphertext, header))


def open_tag(keys: Mapping[int, bytes], tag: bytes) -> tuple[bytes, int, bytes]:
    content, position, block = struct.unpack("<16sQ32s", open_envelope(keys, TAG, tag, b""))
    return content, position, block


def decode_entry(data: bytes) -> dict[str, Any]:
    version, kind, block, matrix, k, m, length, size, depth, key = struct.unpack("<BB32sBBBIQB32s", data)
    assert version == 1
    return {
        "kind": kind,
        "id": block,
        "code": (matrix, k, m),
        "length": length,
        "size": size,
        "depth": depth,
        "key": key,
    }


def open_node(walk_key: bytes, sealed: bytes, read_key: bytes | None) -> dict[str, Any]:
    plain = open_block(derive(walk_key, NODE_BLOCK), sealed, len(sealed) - 50)
    version, level, count = struct.unpack_from("<BBH", plain)
    assert version == 1
    at = 4
    columns = []
    for width in (8, 4, 3, 32, 32 if level > 1 else 0):
        columns.append([plain[at + width * index : at + width * (index + 1)] for index in range(count)])
        at += width * count
    ends, lengths, codes, ids, walk_keys = columns
    end = at + 32 * count + 16
    assert len(plain) == padded(end)
    assert not any(plain[end:])
    keys: list[bytes] = []
    if read_key is not None:
        joined = AESGCM(derive(read_key, NODE_READ_PART)).decrypt(NONCE, plain[at:end], plain[:at])
        keys = [joined[index * 32 : index * 32 + 32] for index in range(count)]
    return {
        "level": level,
        "ends": [int.from_bytes(it, "little") for it in ends],
        "lengths": [int.from_bytes(it, "little") for it in lengths],
        "codes": [tuple(it) for it in codes],
        "ids": ids,
        "walk_keys": walk_keys,
        "keys": keys,
    }


def read_tree(blocks: Mapping[bytes, bytes], entry: Mapping[str, Any]) -> bytes:
    sealed = blocks[entry["id"]]
    assert len(sealed) == entry["length"]
    if entry["depth"] == 0:
        return open_block(entry["key"], sealed, entry["size"])
    node = open_node(derive(entry["key"], WALK_KEY), sealed, entry["key"])
    assert node["level"] == entry["depth"]
    assert node["ends"][-1] == entry["size"]
    plain = b""
    for index, block in enumerate(node["ids"]):
        if entry["depth"] > 1:
            assert node["walk_keys"][index] == derive(node["keys"][index], WALK_KEY)
        child = {
            "id": block,
            "length": node["lengths"][index],
            "size": node["ends"][index] - len(plain),
            "depth": entry["depth"] - 1,
            "key": node["keys"][index],
        }
        plain += read_tree(blocks, child)
    return plain
