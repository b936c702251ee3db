"""Golden bytes of every sealed format. They change only together with a format's version.

`python -m tests.unit.crypto.test_vectors` writes those files that are not there; it never changes one that is.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from holdfast.core.ids import BlockId, ContentId, StoreId
from holdfast.crypto.backup import fingerprint, restore, write_backup
from holdfast.crypto.blocks import BlockSealer
from holdfast.crypto.kek import (
    KeyEncryptionKey,
    PassphraseParameters,
    decode_kek_file,
    encode_kek_file,
    kek_from_passphrase,
    kms_ciphertext,
    unwrap_keyring,
    wrap_keyring,
)
from holdfast.crypto.keyring import Keyring, Purpose, decode_keyring, encode_keyring, new_keyring, rotated
from holdfast.crypto.signature import LAYOUT, public_key, sign, verify
from holdfast.crypto.tags import Tag
from tests.unit.crypto import reference
from tests.unit.crypto.chance import FixedRandomness

VECTORS = Path(__file__).parents[2] / "vectors"

STORE = StoreId(bytes(range(16)))
CONTENT = ContentId(bytes(range(0x40, 0x50)))
BLOCK = BlockId(bytes(range(0x60, 0x80)))
KEY = bytes(range(32))
KEK = KeyEncryptionKey(bytes(range(0x80, 0xA0)))
SEALED_KEK = "vault:v1:" + "QUJD" * 20
COSTS = PassphraseParameters(bytes(range(16)), passes=1, memory_kib=8192, lanes=1)
ROW_KEY = b"Oexample"
PLAINS = {
    "empty": b"",
    "stored": FixedRandomness("plain").bytes(513),
    "stored whole": FixedRandomness("plain").bytes(1024),
    "zstd": b"The quick brown fox jumps over the lazy dog. " * 100,
}


def keyring() -> Keyring:
    chance = FixedRandomness("keyring vector")
    return rotated(new_keyring(STORE, chance), chance)


def make_seal() -> Any:
    sealer = BlockSealer()
    return [
        {"name": name, "key": KEY.hex(), "plain": plain.hex(), "sealed": sealer.seal(KEY, plain).hex()}
        for name, plain in PLAINS.items()
    ]


def make_keyring() -> Any:
    ring = keyring()
    from_passphrase = kek_from_passphrase("correct horse battery staple", COSTS)
    return {
        "document": encode_keyring(ring).hex(),
        "fingerprint": fingerprint(ring),
        "kek": KEK.key.hex(),
        "kek_file": encode_kek_file(KEK).decode(),
        "wrapped": wrap_keyring(ring, KEK, FixedRandomness("wrap")).hex(),
        "passphrase": "correct horse battery staple",
        "passphrase_kek": from_passphrase.key.hex(),
        "passphrase_wrapped": wrap_keyring(ring, from_passphrase, FixedRandomness("wrap")).hex(),
        "kms_wrapped": wrap_keyring(ring, KeyEncryptionKey(KEK.key, kms=SEALED_KEK), FixedRandomness("wrap")).hex(),
        "backup": write_backup(ring, KEK, FixedRandomness("wrap")).decode(),
        "public_key": public_key(ring.signing_seed).hex(),
        "signature_of_layout_abc": sign(ring.signing_seed, LAYOUT, b"abc").hex(),
    }


def make_row() -> Any:
    sealer = keyring().sealer(Purpose.METADATA, FixedRandomness("row vector"))
    return [
        {"row_key": ROW_KEY.hex(), "value": value.hex(), "sealed": sealer.seal(value, ROW_KEY).hex()}
        for value in (b"", b"a value", bytes(300))
    ]


def make_tag() -> Any:
    sealer = keyring().tag_sealer(FixedRandomness("tag vector"))
    return [
        {"content": CONTENT.hex(), "position": at, "block": BLOCK.hex(), "tag": sealer.seal(CONTENT, at, BLOCK).hex()}
        for at in (0, 1_048_576, 1 << 56, 2**64 - 1)
    ]


MAKERS = {"seal": make_seal, "keyring": make_keyring, "row": make_row, "tag": make_tag}


def golden(name: str) -> Any:
    return json.loads((VECTORS / f"{name}.json").read_text())


@pytest.mark.parametrize("name", ["keyring", "row", "tag"])
def test_the_same_bytes_are_made(name: str) -> None:
    assert MAKERS[name]() == golden(name)


def test_blocks() -> None:
    made = make_seal()
    for one, now in zip(golden("seal"), made, strict=True):
        # Any zstd frame of the block will do: another release of the library may find another.
        if one["name"] != "zstd":
            assert one == now
        plain, sealed = bytes.fromhex(one["plain"]), bytes.fromhex(one["sealed"])
        assert sealed[1] == (one["name"] == "zstd")
        assert BlockSealer().open(bytes.fromhex(one["key"]), sealed, len(plain)) == plain
        assert reference.open_block(bytes.fromhex(one["key"]), sealed, len(plain)) == plain
        assert reference.open_block(KEY, bytes.fromhex(now["sealed"]), len(plain)) == plain


def test_keyrings() -> None:
    one = golden("keyring")
    ring = keyring()
    assert decode_keyring(bytes.fromhex(one["document"])) == ring
    assert unwrap_keyring(bytes.fromhex(one["wrapped"]), KEK) == ring
    assert kms_ciphertext(bytes.fromhex(one["kms_wrapped"])) == SEALED_KEK
    assert unwrap_keyring(bytes.fromhex(one["kms_wrapped"]), KEK) == ring
    assert restore(one["backup"].encode(), KEK) == ring
    assert decode_kek_file(one["kek_file"].encode()) == KEK
    verify(bytes.fromhex(one["public_key"]), LAYOUT, b"abc", bytes.fromhex(one["signature_of_layout_abc"]))
    for kek, wrapped in (
        (one["kek"], one["wrapped"]),
        (one["passphrase_kek"], one["passphrase_wrapped"]),
        (one["kek"], one["kms_wrapped"]),
    ):
        document = reference.unwrap_keyring(bytes.fromhex(kek), bytes.fromhex(wrapped))
        assert document == [
            1,
            STORE,
            ring.signing_seed,
            [[it.number, it.metadata, it.read_wrap, it.walk_wrap, it.tag] for it in ring.epochs],
        ]


def test_rows() -> None:
    ring = keyring()
    opener = ring.opener(Purpose.METADATA)
    keys = {epoch.number: epoch.metadata for epoch in ring.epochs}
    for one in golden("row"):
        row_key, value, sealed = (bytes.fromhex(one[name]) for name in ("row_key", "value", "sealed"))
        assert opener.open(sealed, row_key) == value
        assert reference.open_envelope(keys, reference.ROW, sealed, row_key) == value


def test_tags() -> None:
    ring = keyring()
    opener = ring.tag_opener()
    keys = {epoch.number: epoch.tag for epoch in ring.epochs}
    for one in golden("tag"):
        tag = bytes.fromhex(one["tag"])
        assert opener.open(tag) == Tag(CONTENT, one["position"], BLOCK, 2)
        assert reference.open_tag(keys, tag) == (CONTENT, one["position"], BLOCK)


def write_missing() -> None:
    for name, make in MAKERS.items():
        path = VECTORS / f"{name}.json"
        if not path.exists():
            path.write_text(json.dumps(make(), indent=1) + "\n")


if __name__ == "__main__":
    write_missing()
