"""Stores for the tests of trees: a dict, and what goes wrong on purpose."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from holdfast.core.errors import NotFound
from holdfast.core.ids import Buffer
from holdfast.erasure import BlockRef, Code, CodedBlock, code_for, copies, decode, encode
from holdfast.tree import SealingThreads, TreeWriter, split_position
from holdfast.tree.entry import RootEntry
from tests.unit.crypto.chance import FixedRandomness

T = TypeVar("T")


class DictStore:
    """Blocks in a dict, in the order of their puts. Trusts its caller: integrity is for the tree to prove."""

    def __init__(self, code: Code | None = None) -> None:
        self.code = code or copies(1)
        self.blocks: dict[bytes, bytes] = {}
        self.positions: dict[int, BlockRef] = {}
        self.gets: list[BlockRef] = []
        self.in_flight = 0
        """Data blocks that are being put; nodes wait for theirs and are not counted."""
        self.most_in_flight = 0

    def encode(self, sealed: Buffer) -> CodedBlock:
        return encode(sealed, code_for(len(sealed), self.code))

    async def put(self, block: CodedBlock, position: int) -> None:
        counted = split_position(position)[0] == 0
        self.in_flight += counted
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(0)
        finally:
            self.in_flight -= counted
        payloads = {index: block.payloads[index] for index in range(block.ref.code.k)}
        self.blocks[block.ref.id] = bytes(decode(block.ref, payloads))
        assert position not in self.positions
        self.positions[position] = block.ref

    async def get(self, ref: BlockRef, then: Callable[[Buffer], T]) -> T:
        self.gets.append(ref)
        await asyncio.sleep(0)
        try:
            block = self.blocks[ref.id]
        except KeyError:
            raise NotFound("no such block") from None
        return then(block)


def sealing_threads(seed: str = "tree") -> SealingThreads:
    return SealingThreads(ThreadPoolExecutor(2), FixedRandomness(seed))


async def build(
    store: DictStore, threads: SealingThreads, data: bytes, *, block: int, fanout: int, in_flight: int = 4
) -> RootEntry:
    store.positions = {}
    async with TreeWriter(store, threads, fanout=fanout, in_flight=in_flight) as writer:
        for at in range(0, len(data), block):
            await writer.write(memoryview(data)[at : at + block])
        return await writer.finish()
