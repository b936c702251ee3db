"""`LocalMeta`: the embedded engine as the product sees it.

Rules. Reads run on the event loop, in an LMDB read transaction of their own: a row that is in memory takes a few
microseconds, less than a hop to a thread. Commits wait in a queue; one thread per process takes the store's lock, and
then everything that has gathered, as one batch (group commit): while one process syncs, the others' queues fill. Every
outcome of a batch, refusals too, is answered only once what it was judged against is durable.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Self, TypeVar

import lmdb

from holdfast.core.errors import Ambiguous, Corrupt, HoldfastError, NotFound, Unavailable
from holdfast.core.ids import DriveId, Token
from holdfast.core.ranges import KeyRange
from holdfast.meta.interface import Change, Expectation, Fold, Page, Put, Row
from holdfast.meta.limits import check_commit, check_key, check_scan
from holdfast.meta.local.batch import Commit, Outcome
from holdfast.meta.local.care import Care, Finding
from holdfast.meta.local.log import BATCH_MAX_BYTES, BATCH_MAX_COUNT
from holdfast.meta.local.run import CLEAN, Run
from holdfast.meta.local.store import Store
from holdfast.meta.local.view import View, open_view

T = TypeVar("T")


class _Waiting:
    """A commit in the queue, and who waits for it."""

    __slots__ = ("bytes", "commit", "future")

    def __init__(self, commit: Commit, future: asyncio.Future[None], bytes: int) -> None:
        self.commit = commit
        self.future = future
        self.bytes = bytes


class _Work:
    """Something else to do under the store's lock."""

    __slots__ = ("action", "future")

    def __init__(self, action: Callable[[], object]) -> None:
        self.action = action
        self.future: Future[object] = Future()


@dataclass(frozen=True, slots=True)
class Status:
    """How the metadata is kept."""

    epoch: int
    mirrors: tuple[DriveId, ...]
    roster: tuple[DriveId, ...]
    paths: dict[DriveId, Path]
    """The metadata directory of each drive, as far as any process has said."""
    losses: int
    metacopies: int
    read_only: str
    """Why nothing can be committed; "" when it can."""
    full: bool
    """Only deletions are taken."""
    trouble: str
    """What keeps upkeep from doing its work; "" when nothing does."""


class LocalMeta:
    """`Meta` over a log on several drives and a view in LMDB. Made by `open_local`."""

    def __init__(self, store: Store, run: Run) -> None:
        self._store = store
        self._run = run
        self.attendance = run.attendance
        """Of the processes that have this store open: for others who map files."""
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[_Waiting | _Work | None] = SimpleQueue()
        self._thread = Thread(target=self._committer, name="meta-committer", daemon=True)
        self._generation = -1
        self._view: View | None = None
        # Marks the thread of the event loop, which alone reads here, as being in the view. One for all of its reads.
        self._reading: AbstractContextManager[None] = nullcontext()
        self._closing = False
        self._care = Care(store, self._under_lock)
        self._carer = ThreadPoolExecutor(1, thread_name_prefix="meta-care")

    # Reading.

    def _current(self) -> View:
        """The view that readers use now."""
        if self._view is None or self._run.generation != self._generation:
            self._follow()
        assert self._view is not None
        return self._view

    def _follow(self) -> None:
        self._check_open()
        generation = self._run.generation
        state = self._run.read_state()
        if self._view is None or str(self._view.path) != state.view:
            self._reading = self.attendance.inside(Path(state.view).name)
            with self._reading:
                view = open_view(Path(state.view), state.map_bytes)
            if self._view is not None:
                self._view.close()
            self._view = view
        self._generation = generation

    def _look(self, read: Callable[[View], T]) -> T:
        view = self._current()
        with self._reading:
            return read(view)

    async def _read(self, read: Callable[[View], T]) -> T:
        """Read; should the view turn out damaged, have it made again and read once more."""
        try:
            return self._look(read)
        except (lmdb.Error, Corrupt):
            self._check_open()
            broken = self._run.read_state().view if self._view is None else str(self._view.path)
            await asyncio.wrap_future(self._submit(partial(self._store.replace_view, broken)))
        try:
            return self._look(read)
        except lmdb.Error as error:
            raise Unavailable(f"the metadata view cannot be read: {error}") from error

    async def get(self, key: bytes) -> Row:
        check_key(key)
        [row] = await self.get_many((key,))
        if row is None:
            raise NotFound("no such row")
        return row

    async def get_many(self, keys: Sequence[bytes]) -> list[Row | None]:
        def read(view: View) -> list[Row | None]:
            with view.reading() as transaction:
                return [view.get(transaction, key) for key in keys]

        return await self._read(read)

    async def scan(self, range: KeyRange, *, limit: int, fold: Fold | None = None, values: bool = True) -> Page:
        check_scan(limit, fold)

        def read(view: View) -> Page:
            with view.reading() if values else view.skimming() as transaction:
                return view.scan(transaction, range, limit, fold, values)

        return await self._read(read)

    # Committing.

    async def commit(self, changes: Sequence[Change], expecting: Sequence[Expectation] = (), *, token: Token) -> None:
        size = check_commit(changes, expecting, token)
        self._check_open()
        logged = [(change.key, change.value) if type(change) is Put else (change.key,) for change in changes]
        future: asyncio.Future[None] = self._loop.create_future()
        self._queue.put(_Waiting(Commit(token, logged, expecting), future, size))
        await future

    def _check_open(self) -> None:
        if self._closing:
            raise Unavailable("the metadata is closed")

    def _submit(self, action: Callable[[], object]) -> Future[object]:
        """Have something blocking done in the committer's thread, under the store's lock."""
        work = _Work(action)
        self._queue.put(work)
        return work.future

    def _under_lock(self, action: Callable[[], T]) -> T:
        """As `_submit`, and wait: for threads."""
        return self._submit(action).result()  # type: ignore[return-value]

    def _committer(self) -> None:
        """The committer thread, until None comes out of the queue."""
        lock = self._run.new_lock()
        first = self._queue.get()
        while first is not None:
            left: list[_Waiting | _Work | None] = []
            if isinstance(first, _Work):
                with lock:
                    self._work(first)
            else:
                with lock:
                    batch, left = self._gather(first)
                    outcomes = self._outcomes(batch)
                self._loop.call_soon_threadsafe(_answer, batch, outcomes)
                if self._store.hold.care_is_due:
                    self._store.hold.care_is_due = False
                    self._tend()
            first = left[0] if left else self._queue.get()
        lock.close()

    def _gather(self, first: _Waiting) -> tuple[list[_Waiting], list[_Waiting | _Work | None]]:
        """What waits, up to a batch's limits; and what came out of the queue and is no part of it, at most one."""
        batch = [first]
        size = first.bytes
        while size < BATCH_MAX_BYTES and len(batch) < BATCH_MAX_COUNT:
            try:
                waiting = self._queue.get_nowait()
            except Empty:
                break
            if not isinstance(waiting, _Waiting) or size + waiting.bytes > BATCH_MAX_BYTES:
                return batch, [waiting]
            batch.append(waiting)
            size += waiting.bytes
        return batch, []

    def _outcomes(self, batch: Sequence[_Waiting]) -> list[Outcome]:
        try:
            return self._store.commit([waiting.commit for waiting in batch])
        except HoldfastError as error:
            return [type(error)(str(error)) for _ in batch]
        except Exception as error:  # noqa: BLE001  this thread must live on: nobody else would answer who waits
            # Until the mark is gone, the record that it speaks of may still take effect.
            kind = Unavailable if self._run.dirty == CLEAN else Ambiguous
            if not isinstance(error, OSError | lmdb.Error):
                self._tell(error)
            return [kind(f"the metadata cannot be written: {error!r}") for _ in batch]

    def _work(self, work: _Work) -> None:
        if not work.future.set_running_or_notify_cancel():
            # Who asked for it was cancelled.
            return
        try:
            result = work.action()
        except lmdb.Error as error:
            work.future.set_exception(Unavailable(f"the metadata view failed: {error}"))
        except Exception as error:  # noqa: BLE001  it goes to who waits for it; this thread must live on
            work.future.set_exception(error)
        else:
            work.future.set_result(result)

    def _tell(self, error: Exception) -> None:
        """Say what should not have happened where the event loop says such things."""
        context = {"message": "committing metadata failed in a way that nobody expected", "exception": error}
        self._loop.call_soon_threadsafe(self._loop.call_exception_handler, context)

    # Upkeep.

    def _tend(self) -> None:
        try:
            self._carer.submit(self._care.tend)
        except RuntimeError:
            # Shut down: the store is being closed.
            return

    async def _with_care(self, action: Callable[[], T]) -> T:
        self._check_open()
        try:
            return await asyncio.wrap_future(self._carer.submit(action))
        except (OSError, lmdb.Error) as error:
            raise Unavailable(f"the metadata's upkeep failed: {error}") from error

    async def checkpoint(self) -> int:
        """Write every row to every mirror, and drop the log that this makes needless; the sequence that it holds."""
        return await self._with_care(self._care.checkpoint)

    async def mend(self) -> list[Finding]:
        """Drop mirrors that are gone, and bring up others; what was done, and what is missing."""
        return await self._with_care(self._care.mend)

    async def verify(self) -> list[Finding]:
        """Read everything at rest, compare, repair; what was found."""
        return await self._with_care(self._care.verify)

    async def backup(self, path: Path) -> int:
        """Write this moment's rows to a new file, while commits go on; the sequence that it holds."""
        return await self._with_care(lambda: self._care.backup(path))

    async def set_drives(
        self, drives: Mapping[DriveId, Path], *, losses: int, metacopies: int | None = None
    ) -> list[Finding]:
        """From now on these are the store's drives: new ones are taken in, and mirrors leave those not named.

        Raises InvalidRequest, AlreadyExists (a drive holds another store's metadata), Unavailable, Full.
        """
        return await self._with_care(lambda: self._care.set_drives(drives, losses, metacopies))

    async def replace_drives(
        self, drives: Mapping[DriveId, Path], *, heirs: Mapping[DriveId, DriveId]
    ) -> list[Finding]:
        """Put new drives in the places of some that are lost: `heirs` has the new one of each, `drives` where it is.

        Whoever calls this declares that the lost drives will never be given to this store again. It works when
        nothing can be committed any more for want of them. Raises AlreadyExists, Unavailable.
        """
        return await self._with_care(lambda: self._care.replace_drives(drives, heirs))

    def status(self) -> Status:
        """How the metadata is kept now."""
        state = self._run.read_state()
        return Status(
            epoch=state.epoch,
            mirrors=tuple(map(DriveId, state.mirrors)),
            roster=tuple(map(DriveId, state.roster)),
            paths={DriveId(drive): Path(path) for drive, path in state.paths.items()},
            losses=state.losses,
            metacopies=state.metacopies,
            read_only=state.writable,
            full=self._run.tight,
            trouble=self._care.trouble,
        )

    # Life.

    async def start(self) -> None:
        """Join the store; see `open_local`."""
        lock = self._run.new_lock()

        def join() -> None:
            with lock:
                try:
                    self._store.start()
                except BaseException:
                    self._let_go()
                    raise

        joining = asyncio.ensure_future(asyncio.to_thread(join))
        try:
            await asyncio.shield(joining)
        except BaseException:
            # A thread cannot be cancelled, and the lock must stay held until it has ended.
            await _regardless(joining)
            if joining.exception() is None:
                with lock:
                    self._let_go()
            self._run.close()
            raise
        finally:
            lock.close()
        self._thread.start()
        self._tend()

    def _let_go(self) -> None:
        """Be nobody who has the store open. Under the store's lock: see `Run.leave`."""
        self._store.hold.close()
        self._run.leave()

    async def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        self._care.stopping = True
        # What care has begun may still need the committer.
        await asyncio.to_thread(self._carer.shutdown)
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)
        if self._view is not None:
            self._view.close()
            self._view = None
        lock = self._run.new_lock()

        def leave() -> None:
            with lock:
                self._store.hold.leave()
                self._let_go()

        await asyncio.to_thread(leave)
        lock.close()
        self._run.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def _regardless(ending: asyncio.Future[None]) -> None:
    """Wait for the end of something, whatever cancellations come; the caller is being cancelled already."""
    while not ending.done():
        try:
            await asyncio.wait((ending,))
        except asyncio.CancelledError:
            continue


def _answer(batch: Sequence[_Waiting], outcomes: Sequence[Outcome]) -> None:
    for waiting, outcome in zip(batch, outcomes, strict=True):
        if waiting.future.done():
            continue
        if outcome is None:
            waiting.future.set_result(None)
        else:
            waiting.future.set_exception(outcome)
