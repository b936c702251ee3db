"""Plain blocks in order to a tree: a pipeline of bounded length.

    write ──> [compress, seal, code, hash: a thread] ──> [put: the store] ──> parent's list ──full──> a node, likewise

Rules.

- At most `in_flight` data blocks are past `write` and not yet stored, and each is one of the process's budget: memory
  is bounded by that, whatever the size and the number of trees. Nodes are few and wait for their children, so they are
  not counted.
- After the first failure nothing new is begun; `write` and `finish` raise it.
- However it ends, no task is left: use it as `async with`, which aborts what was not finished.
- Blocks that were stored and whose parents were not are known to `abort`. A killed process leaves them to collection,
  which finds them by their tags.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self

from holdfast.core.errors import InvalidRequest
from holdfast.core.ids import Buffer
from holdfast.core.limits import BLOCK_MAX_BYTES, KIB
from holdfast.crypto.blocks import new_block_key, sealed_max_bytes
from holdfast.erasure import CodedBlock
from holdfast.erasure.arena import SHARED
from holdfast.tree.entry import RootEntry, WalkRoot, walk_key
from holdfast.tree.node import FANOUT, Child, seal_node
from holdfast.tree.store import SIZE_MAX_BYTES, BlockStore, make_position
from holdfast.tree.threads import SealingThreads

# Two threads seal while two blocks are on their way to the drives; more only holds memory.
IN_FLIGHT_DEFAULT = 4

# Buffers from here on come from the arena, whose grain would waste more than it saves on smaller ones.
_POOLED_FROM_BYTES = 128 * KIB

Sealed = tuple[CodedBlock, Child]
"""A data block on its way to the drives, and what its parent will know of it."""


class TreeWriter:
    """Builds one tree. For one task at a time."""

    def __init__(
        self,
        store: BlockStore,
        threads: SealingThreads,
        *,
        in_flight: int = IN_FLIGHT_DEFAULT,
        fanout: int = FANOUT,
    ) -> None:
        assert in_flight >= 1
        assert 2 <= fanout <= FANOUT
        self._store = store
        self._threads = threads
        self._in_flight = in_flight
        self._fanout = fanout
        self._slots = asyncio.Semaphore(in_flight)
        self._size = 0
        self._levels: list[list[asyncio.Task[Child]]] = [[]]
        """For each level, the subtrees that have no parent yet, in order."""
        self._orphans: dict[int, Child] = {}
        """By position, the subtrees that are stored and whose parents are not."""
        self._held: dict[int, Callable[[], None]] = {}
        """By first byte, the blocks whose plain bytes are still needed: what to call when they are not."""
        self._inside: dict[int, int] = {}
        """By first byte, the lengths of the blocks that are in the pipeline."""
        self._tasks: set[asyncio.Task[Child]] = set()
        self._failure: BaseException | None = None
        self._ended = False

    @property
    def size(self) -> int:
        """Plain bytes taken so far."""
        return self._size

    async def write(self, plain: Buffer, done: Callable[[], None] | None = None) -> None:
        """`write_together` of one block."""
        await self.write_together((plain,), done)

    async def write_together(self, blocks: Sequence[Buffer], done: Callable[[], None] | None = None) -> None:
        """Take the next blocks, each 1 to BLOCK_MAX_BYTES; returns when there is a place for them in the pipeline.

        They are sealed in one visit to a thread and go to the drives at once, whose commits then have all of them. At
        most `in_flight`, and no more bytes than the process's budget.

        `blocks` must not change before `done` was called, which happens once and on the event loop, also after a
        failure. When this raises, `done` is not called. Raises what failed for an earlier block.
        """
        assert not self._ended
        assert 0 < len(blocks) <= self._in_flight
        lengths = [len(plain) for plain in blocks]
        if not all(0 < length <= BLOCK_MAX_BYTES for length in lengths):
            raise InvalidRequest(f"blocks have 1 to {BLOCK_MAX_BYTES} bytes, not {lengths}")
        if self._size + sum(lengths) > SIZE_MAX_BYTES:
            raise InvalidRequest("a tree holds at most 2**56 bytes")
        await self._enter(lengths)
        if self._failure is not None:
            self._threads.blocks.release(sum(lengths))
            self._free_slots(len(lengths))
            raise self._failure
        self._begin_leaves(blocks, done)

    async def finish(self) -> RootEntry:
        """Store what is left and name the tree. A tree of nothing is one empty data block. Raises what failed."""
        assert not self._ended
        if self._failure is not None:
            raise self._failure
        if not self._size:
            await self._enter([0])
            self._begin_leaves([b""], None)
        level = 0
        while len(self._levels[level]) != 1 or level + 1 < len(self._levels):
            if self._levels[level]:
                self._close_node(level)
            level += 1
        root = await self._levels[level][0]
        self._ended = True
        return RootEntry(root.ref, root.length, root.level, root.key)

    async def abort(self) -> tuple[WalkRoot, ...]:
        """Stop. The subtrees that are known to be stored: a walk of each finds every block that need not wait for
        collection. None after `finish`, whose tree is the caller's."""
        finished, self._ended = self._ended, True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # Of a task that was cancelled before its first step nothing has run.
        for start in list(self._held):
            self._let_go(start)
        for start in list(self._inside):
            self._leave(start)
        if finished:
            return ()
        return tuple(
            WalkRoot(child.ref, child.length, child.level, walk_key(child.key)) for child in self._orphans.values()
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.abort()

    async def _enter(self, lengths: Sequence[int]) -> None:
        """Wait for places in the pipeline; those in the process's are asked for last, since others wait for them, and
        at once, or those who have some and wait for more could wait for each other."""
        slots = 0
        try:
            for _ in lengths:
                await self._slots.acquire()
                slots += 1
            await self._threads.blocks.acquire(sum(lengths))
        except BaseException:
            self._free_slots(slots)
            raise

    def _leave(self, start: int) -> None:
        length = self._inside.pop(start, None)
        if length is not None:
            self._threads.blocks.release(length)
            self._slots.release()

    def _free_slots(self, count: int) -> None:
        for _ in range(count):
            self._slots.release()

    def _begin_leaves(self, blocks: Sequence[Buffer], done: Callable[[], None] | None) -> None:
        first = self._size
        if done is not None:
            self._held[first] = done
        leaves: list[tuple[int, bytes, Buffer]] = []
        for plain in blocks:
            leaves.append((self._size, new_block_key(self._threads.randomness), plain))
            self._inside[self._size] = len(plain)
            self._size += len(plain)
        sealing = self._threads.begin(lambda: [self._seal_leaf(*leaf) for leaf in leaves])
        sealing.add_done_callback(partial(self._note_sealed, first))
        for number, (start, _, _) in enumerate(leaves):
            self._append(0, self._store_leaf(sealing, number, start))

    def _note_sealed(self, first: int, sealing: asyncio.Future[list[Sealed]]) -> None:
        self._let_go(first)
        # Asking marks the exception as seen, when every task that would have awaited it was cancelled.
        if not sealing.cancelled():
            sealing.exception()

    def _let_go(self, start: int) -> None:
        done = self._held.pop(start, None)
        if done is not None:
            done()

    def _append(self, level: int, work: Coroutine[Any, Any, Child]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._note_end)
        if level == len(self._levels):
            self._levels.append([])
        self._levels[level].append(task)
        if len(self._levels[level]) == self._fanout:
            self._close_node(level)

    def _close_node(self, level: int) -> None:
        children, self._levels[level] = self._levels[level], []
        self._append(level + 1, self._store_node(children))

    def _note_end(self, task: asyncio.Task[Child]) -> None:
        self._tasks.discard(task)
        # Asking marks the exception as seen, of the second failure too, which nobody awaits.
        failure = None if task.cancelled() else task.exception()
        if self._failure is None:
            self._failure = failure

    async def _store_leaf(self, sealing: asyncio.Future[list[Sealed]], number: int, start: int) -> Child:
        try:
            coded, child = (await sealing)[number]
            await self._store.put(coded, make_position(0, start))
        finally:
            self._leave(start)
        return self._stored(child)

    def _seal_leaf(self, start: int, key: bytes, plain: Buffer) -> Sealed:
        longest = sealed_max_bytes(len(plain))
        out = SHARED.take(longest) if longest >= _POOLED_FROM_BYTES else memoryview(bytearray(longest))
        length = self._threads.sealer().seal_into(key, plain, out)
        coded = self._store.encode(out[:length])
        return coded, Child(coded.ref, 0, start, len(plain), key)

    async def _store_node(self, pending: Sequence[asyncio.Task[Child]]) -> Child:
        children = await asyncio.gather(*pending)
        key = new_block_key(self._threads.randomness)
        coded = await self._threads.run(
            lambda: self._store.encode(seal_node(self._threads.sealer(), key, children)),
        )
        first, last = children[0], children[-1]
        level = first.level + 1
        await self._store.put(coded, make_position(level, first.start))
        for child in children:
            del self._orphans[make_position(child.level, child.start)]
        length = last.start + last.length - first.start
        return self._stored(Child(coded.ref, level, first.start, length, key))

    def _stored(self, child: Child) -> Child:
        self._orphans[make_position(child.level, child.start)] = child
        return child
