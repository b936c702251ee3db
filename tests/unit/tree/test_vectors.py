"""Golden bytes of entries, links, nodes and whole trees. They change only together with a format's version.

`python -m tests.unit.tree.test_vectors` writes those files that are not there; it never changes one that is.
"""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from holdfast.core.ids import BlockId, ContentId, StoreId
from holdfast.crypto.keyring import Keyring, Purpose, new_keyring
from holdfast.erasure import BlockRef, copies, erasure
from holdfast.tree import (
    Link,
    RootEntry,
    SealingThreads,
    decode_link,
    decode_root,
    decode_walk_root,
    encode_link,
    encode_root,
    encode_walk_root,
    read,
    unwrap_root,
    unwrap_walk_root,
    walk,
    wrap_root,
    wrap_walk_root,
)
from tests.unit.crypto import reference
from tests.unit.crypto.chance import FixedRandomness
from tests.unit.tree.stores import DictStore, build

VECTORS = Path(__file__).parents[2] / "vectors"

CONTENT = ContentId(bytes(range(0x40, 0x50)))
ROOT = RootEntry(BlockRef(BlockId(bytes(range(32))), erasure(4, 2), 1_048_626), 5 * 2**40, 3, bytes(range(100, 132)))
PLAIN = bytes(range(256)) * 11


def keyring() -> Keyring:
    return new_keyring(StoreId(bytes(16)), FixedRandomness("entry vector"))


def make_entry() -> Any:
    ring = keyring()
    return {
        "entry": encode_root(ROOT).hex(),
        "walk": encode_walk_root(ROOT.walk_root()).hex(),
        "content": CONTENT.hex(),
        "wrapped": wrap_root(ROOT, CONTENT, ring.sealer(Purpose.READ, FixedRandomness("wrap"))).hex(),
        "wrapped_walk": wrap_walk_root(ROOT, CONTENT, ring.sealer(Purpose.WALK, FixedRandomness("wrap"))).hex(),
        "link": encode_link(Link(ROOT, b"where")),
    }


async def make_tree() -> Any:
    """Eleven blocks of 256 bytes, two copies each, and nodes of up to four children, in two levels."""
    store = DictStore(copies(2))
    with ThreadPoolExecutor(1) as executor:
        # One block at a time: keys are drawn in the order of sealing.
        threads = SealingThreads(executor, FixedRandomness("tree vector"))
        root = await build(store, threads, PLAIN, block=256, fanout=4, in_flight=1)
    return {
        "plain": PLAIN.hex(),
        "entry": encode_root(root).hex(),
        "blocks": [
            {"position": position, "id": ref.id.hex(), "sealed": store.blocks[ref.id].hex()}
            for position, ref in sorted(store.positions.items())
        ],
    }


def golden(name: str) -> Any:
    return json.loads((VECTORS / f"{name}.json").read_text())


def test_entries() -> None:
    one = golden("entry")
    assert make_entry() == one
    ring = keyring()
    raw = {name: bytes.fromhex(text) for name, text in one.items() if name != "link"}
    assert decode_root(raw["entry"]) == ROOT
    assert decode_walk_root(raw["walk"]) == ROOT.walk_root()
    assert unwrap_root(raw["wrapped"], CONTENT, ring.opener(Purpose.READ)) == ROOT
    assert unwrap_walk_root(raw["wrapped_walk"], CONTENT, ring.opener(Purpose.WALK)) == ROOT.walk_root()
    assert decode_link(one["link"]) == Link(ROOT, b"where")
    by_page = reference.decode_entry(raw["entry"])
    assert by_page["kind"] == 1
    assert (by_page["id"], by_page["code"], by_page["length"]) == (ROOT.ref.id, (1, 4, 2), ROOT.ref.length)
    assert (by_page["size"], by_page["depth"], by_page["key"]) == (ROOT.size, ROOT.depth, ROOT.key)
    walking = reference.decode_entry(raw["walk"])
    assert walking["kind"] == 2
    assert walking["key"] == reference.derive(ROOT.key, reference.WALK_KEY)
    read_keys = {1: ring.current.read_wrap}
    assert reference.open_envelope(read_keys, reference.READ_WRAP, raw["wrapped"], CONTENT) == raw["entry"]
    walk_keys = {1: ring.current.walk_wrap}
    assert reference.open_envelope(walk_keys, reference.WALK_WRAP, raw["wrapped_walk"], CONTENT) == raw["walk"]


async def test_a_tree_is_made_of_the_same_bytes() -> None:
    assert await make_tree() == golden("tree")


async def test_a_tree_is_read_by_the_product_and_by_the_page(threads: SealingThreads) -> None:
    one = golden("tree")
    store = DictStore(copies(2))
    store.blocks = {bytes.fromhex(it["id"]): bytes.fromhex(it["sealed"]) for it in one["blocks"]}
    root = decode_root(bytes.fromhex(one["entry"]))
    assert root.depth == 2
    assert b"".join([bytes(piece) async for piece in read(store, threads, root)]) == PLAIN
    walked = [(it.position, it.ref.id.hex()) async for it in walk(store, threads, root.walk_root())]
    assert sorted(walked) == [(it["position"], it["id"]) for it in one["blocks"]]
    assert reference.read_tree(store.blocks, reference.decode_entry(bytes.fromhex(one["entry"]))) == PLAIN


async def test_the_page_reads_what_is_written_today(threads: SealingThreads) -> None:
    for size in (0, 1, 1000, 5000):
        store = DictStore()
        plain = FixedRandomness("today").bytes(size)
        root = await build(store, threads, plain, block=100, fanout=5)
        assert reference.read_tree(store.blocks, reference.decode_entry(encode_root(root))) == plain


def write_missing() -> None:
    for name, made in (("entry", make_entry()), ("tree", asyncio.run(make_tree()))):
        path = VECTORS / f"{name}.json"
        if not path.exists():
            path.write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    write_missing()
