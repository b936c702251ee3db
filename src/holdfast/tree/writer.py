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
        """Take the next block, 1 to BLOCK_MAX_BYTES; returns when there is a place for it in the pipeline.

        `plain` must not change before `done` was called, which happens once and on the event loop, also after a
        failure. When `write` itself raises, `done` is not called. Raises what failed for an earlier block.
        """
        assert not self._ended
        if not 0 < len(plain) <= BLOCK_MAX_BYTES:
            raise InvalidRequest(f"a block has 1 to {BLOCK_MAX_BYTES} bytes, not {len(plain)}")
        if self._size + len(plain) > SIZE_MAX_BYTES:
            raise InvalidRequest("a tree holds at most 2**56 bytes")
        await self._enter(len(plain))
        if self._failure is not None:
            self._threads.blocks.release(len(plain))
            self._slots.release()
            raise self._failure
        self._begin_leaf(plain, done)

    async def finish(self) -> RootEntry:
        """Store what is left and name the tree. A tree of nothing is one empty data block. Raises what failed."""
        assert not self._ended
        if self._failure is not None:
            raise self._failure
        if not self._size:
            await self._enter(0)
            self._begin_leaf(b"", None)
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

    async def _enter(self, length: int) -> None:
        """Wait for a place in the pipeline; its place in the process's is asked for last, since others wait for it."""
        await self._slots.acquire()
        try:
            await self._threads.blocks.acquire(length)
        except BaseException:
            self._slots.release()
            raise

    def _leave(self, start: int) -> None:
        length = self._inside.pop(start, None)
        if length is not None:
            self._threads.blocks.release(length)
            self._slots.release()

    def _begin_leaf(self, plain: Buffer, done: Callable[[], None] | None) -> None:
        start = self._size
        self._size += len(plain)
        if done is not None:
            self._held[start] = done
        self._inside[start] = len(plain)
        self._append(0, self._store_leaf(plain, start))

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

    async def _store_leaf(self, plain: Buffer, start: int) -> Child:
        key = new_block_key(self._threads.randomness)
        try:
            try:
                coded = await self._threads.run(lambda: self._seal_leaf(key, plain))
            finally:
                self._let_go(start)
            await self._store.put(coded, make_position(0, start))
        finally:
            self._leave(start)
        return self._stored(Child(coded.ref, 0, start, len(plain), key))

    def _seal_leaf(self, key: bytes, plain: Buffer) -> CodedBlock:
        longest = sealed_max_bytes(len(plain))
        out = SHARED.take(longest) if longest >= _POOLED_FROM_BYTES else memoryview(bytearray(longest))
        length = self._threads.sealer().seal_into(key, plain, out)
        return self._store.encode(out[:length])

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
