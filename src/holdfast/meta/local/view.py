"""The view: what the log says, as an ordered map that can be read at once. A cache in LMDB.

Rules.
- Nothing here is durable: the view is opened without syncs, its pages have no checksums, and it can always be made
  again from a checkpoint and the log behind it. It holds the position in the log up to which it was applied, written in
  the same transaction, so that it is never half a record behind.
- One environment per path and process (LMDB forbids two): `open_view` keeps count.
- LMDB's table of readers and locks is allocated beforehand, and looked at before each access (`mapped.readers`).

A row lies in LMDB under its own key while that is at most 510 bytes long. Longer keys share ordered overflow rows: the
first 511 bytes, a length that no other key has, name a node, and what follows lies below it in a second map, behind
the node's 8-byte number and again at most 511 bytes at a time. A key of 511 bytes or more sorts among the others by
its first 511, and its node's rows sort by the rest, so one walk visits every key in order.
"""

import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import lmdb

from holdfast.core.ids import RANDOM_ID_BYTES, Token
from holdfast.core.ranges import KeyRange, prefix_end
from holdfast.mapped.readers import ReaderTable, allocate_table
from holdfast.meta.interface import Expectation, Fold, Folded, HasToken, IsAbsent, Page, Row
from holdfast.meta.local.log import LoggedChange, Position, decode_position, encode_position

# LMDB's own limit, compiled into the wheel.
LMDB_KEY_MAX_BYTES = 511

# More processes and threads than will ever read at once; a slot is 64 bytes of the lock file.
READERS_MAX_COUNT = 1022

_POSITION_KEY = b"position"
_NEXT_NODE_KEY = b"next node"
_NODE = struct.Struct(">Q")

Transaction = Any
"""An LMDB transaction."""


@dataclass(slots=True)
class _Environment:
    """An LMDB environment that this process has open, and how often."""

    env: Any
    rows: Any
    overflow: Any
    system: Any
    table: ReaderTable
    users: int


_environments: dict[Path, _Environment] = {}
_environments_lock = Lock()


def open_view(path: Path, map_bytes: int, *, create: bool = False) -> "View":
    """The view in directory `path`. Raises lmdb.Error; OSError when a new one has no room."""
    path = path.resolve()
    with _environments_lock:
        shared = _environments.get(path)
        if shared is None:
            shared = _open_environment(path, map_bytes, create)
            _environments[path] = shared
        shared.users += 1
    return View(path, shared, map_bytes)


def _open_environment(path: Path, map_bytes: int, create: bool) -> _Environment:
    if create:
        allocate_table(path, READERS_MAX_COUNT)
    env = lmdb.open(
        str(path),
        map_size=map_bytes,
        max_dbs=3,
        max_readers=READERS_MAX_COUNT,
        mode=0o600,
        create=create,
        sync=False,
        metasync=False,
        readahead=False,
        lib_version=0,
    )
    table: ReaderTable | None = None
    try:
        table = ReaderTable(path)
        env.reader_check()
        rows, overflow, system = (env.open_db(name, create=create) for name in (b"rows", b"overflow", b"system"))
        return _Environment(env, rows, overflow, system, table, 0)
    except (lmdb.Error, OSError) as error:
        env.close()
        if table is not None:
            table.close()
        if isinstance(error, OSError):
            raise lmdb.Error(str(error)) from error
        raise


def abandon(transaction: Transaction) -> None:
    """Abort a transaction, in whatever state a failure left it."""
    with suppress(lmdb.Error):
        transaction.abort()


class View:
    """An open view. Any thread may read; one write transaction at a time, under the store's lock."""

    def __init__(self, path: Path, shared: _Environment, map_bytes: int) -> None:
        self.path = path
        self.map_bytes = map_bytes
        self._shared: _Environment | None = shared
        self._env = shared.env
        self._rows = shared.rows
        self._overflow = shared.overflow
        self._system = shared.system

    def close(self) -> None:
        """Let go of the environment: the last who does closes it. No transaction may be open in this process."""
        shared, self._shared = self._shared, None
        if shared is None:
            return
        with _environments_lock:
            shared.users -= 1
            if shared.users == 0:
                del _environments[self.path]
                shared.env.close()
                shared.table.close()

    def reading(self) -> Transaction:
        """A transaction that sees one moment, its values as bytes. Raises lmdb.Error."""
        return self._begin()

    def skimming(self) -> Transaction:
        """A transaction that sees one moment, its values as memoryviews that die with it. Raises lmdb.Error."""
        return self._begin(buffers=True)

    def writing(self) -> Transaction:
        """A transaction to apply records in. Its values are memoryviews that die with the next write.

        Raises lmdb.Error.
        """
        return self._begin(write=True, buffers=True)

    def _begin(self, *, write: bool = False, buffers: bool = False) -> Transaction:
        if self._shared is not None and not self._shared.table.is_sound():
            raise lmdb.CorruptedError(f"the table of readers of {self.path} was written over")
        return self._env.begin(db=self._rows, write=write, buffers=buffers)

    def sync(self) -> None:
        """Put every applied record on stable storage. Raises lmdb.Error."""
        self._env.sync(True)

    def used_bytes(self) -> int:
        """Bytes of the view's file that hold pages, free ones included: at least what its rows take."""
        page_bytes = 4096
        return int(self._env.info()["last_pgno"] + 1) * page_bytes

    def free_dead_readers(self) -> None:
        """Give back the slots, and with them the pages, of readers that were killed."""
        if self._shared is not None and self._shared.table.is_sound():
            self._env.reader_check()

    # Reading.

    def get(self, transaction: Transaction, key: bytes) -> Row | None:
        raw = self._find(transaction, key)
        if raw is None:
            return None
        return Row(key, Token(bytes(raw[:RANDOM_ID_BYTES])), bytes(raw[RANDOM_ID_BYTES:]))

    def scan(self, transaction: Transaction, range: KeyRange, limit: int, fold: Fold | None, values: bool) -> Page:
        """A page of `range`; `transaction` from `skimming` unless `values`."""
        entries: list[Row | Folded] = []
        start: bytes | None = range.start
        end = range.end
        while start is not None:
            resume: bytes | None = None
            for key, raw in self._walk(transaction, start):
                if end is not None and key >= end:
                    break
                if len(entries) >= limit:
                    return Page(tuple(entries), key)
                if fold is not None:
                    found = key.find(fold.delimiter, fold.skip)
                    if found >= 0:
                        prefix = key[: found + len(fold.delimiter)]
                        entries.append(Folded(prefix))
                        resume = prefix_end(prefix)
                        break
                token = Token(bytes(raw[:RANDOM_ID_BYTES]))
                entries.append(Row(key, token, raw[RANDOM_ID_BYTES:] if values else b""))
            start = resume
        return Page(tuple(entries), None)

    def everything(self, transaction: Transaction) -> Iterator[tuple[bytes, bytes]]:
        """Every row in order: its key, and its token and value in one."""
        return self._walk(transaction, b"")

    def position(self, transaction: Transaction) -> Position:
        """Up to where in the log the view was applied. Raises Corrupt."""
        return decode_position(transaction.get(_POSITION_KEY, b"", db=self._system))

    def first_failure(self, transaction: Transaction, expecting: Sequence[Expectation]) -> int | None:
        """Which expectation is the first that does not hold; None when all do."""
        for number, expectation in enumerate(expecting):
            if type(expectation) is HasToken:
                raw = self._find(transaction, expectation.key)
                if raw is None or raw[:RANDOM_ID_BYTES] != expectation.token:
                    return number
            elif type(expectation) is IsAbsent:
                if self._find(transaction, expectation.key) is not None:
                    return number
            elif not self._is_empty(transaction, expectation.range):  # type: ignore[union-attr]
                return number
        return None

    def would_grow(self, transaction: Transaction, changes: Sequence[LoggedChange]) -> bool:
        """Whether the rows that a commit changes take more bytes after it than before."""
        last = {change[0]: change for change in changes}
        growth = 0
        for key, change in last.items():
            raw = self._find(transaction, key)
            growth -= 0 if raw is None else len(key) + len(raw)
            growth += RANDOM_ID_BYTES + sum(map(len, change)) if len(change) == 2 else 0
        return growth > 0

    def _is_empty(self, transaction: Transaction, range: KeyRange) -> bool:
        for key, _ in self._walk(transaction, range.start):
            return range.end is not None and key >= range.end
        return True

    def _find(self, transaction: Transaction, key: bytes) -> Any:
        if len(key) < LMDB_KEY_MAX_BYTES:
            return transaction.get(key)
        return self._find_long(transaction, key)

    def _find_long(self, transaction: Transaction, key: bytes) -> Any:
        place, rest, tree = b"", key, self._rows
        while len(place) + len(rest) >= LMDB_KEY_MAX_BYTES:
            room = LMDB_KEY_MAX_BYTES - len(place)
            node = transaction.get(place + rest[:room], db=tree)
            if node is None:
                return None
            place, rest, tree = bytes(node), rest[room:], self._overflow
        return transaction.get(place + rest, db=tree)

    def _walk(self, transaction: Transaction, start: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Rows from key `start`, included: key, and token with value (a memoryview if the transaction says so)."""
        cursor = transaction.cursor(db=self._rows)
        if not cursor.set_range(start[:LMDB_KEY_MAX_BYTES]) if start else not cursor.first():
            return
        for place, raw in cursor.iternext():
            key = bytes(place)
            if len(key) == LMDB_KEY_MAX_BYTES:
                yield from self._walk_node(transaction, bytes(raw), key, start)
            else:
                yield key, raw

    def _walk_node(
        self, transaction: Transaction, node: bytes, stem: bytes, start: bytes
    ) -> Iterator[tuple[bytes, bytes]]:
        """Rows below a node whose keys all begin with `stem`, from `start` if that begins with it too."""
        rest = start[len(stem) :] if start.startswith(stem) else b""
        cursor = transaction.cursor(db=self._overflow)
        if not cursor.set_range((node + rest)[:LMDB_KEY_MAX_BYTES]):
            return
        for place, raw in cursor.iternext():
            place = bytes(place)
            if not place.startswith(node):
                return
            key = stem + place[len(node) :]
            if len(place) == LMDB_KEY_MAX_BYTES:
                yield from self._walk_node(transaction, bytes(raw), key, start)
            else:
                yield key, raw

    # Writing.

    def apply(self, transaction: Transaction, token: bytes, changes: Sequence[LoggedChange]) -> None:
        """Apply a commit's changes in order."""
        for change in changes:
            key = change[0]
            if len(key) >= LMDB_KEY_MAX_BYTES:
                if len(change) == 2:
                    self._put_long(transaction, key, token + change[1])
                else:
                    self._delete_long(transaction, key)
            elif len(change) == 2:
                transaction.put(key, token + change[1])
            else:
                transaction.delete(key)

    def load(self, transaction: Transaction, rows: Sequence[tuple[bytes, bytes]]) -> None:
        """Add rows in key order, behind every row that is there."""
        for key, raw in rows:
            if len(key) >= LMDB_KEY_MAX_BYTES:
                self._put_long(transaction, key, raw)
            else:
                transaction.put(key, raw, append=True)

    def empty(self) -> None:
        """Remove every row."""
        with self.writing() as transaction:
            for tree in (self._rows, self._overflow, self._system):
                transaction.drop(tree, delete=False)

    def set_position(self, transaction: Transaction, position: Position) -> None:
        transaction.put(_POSITION_KEY, encode_position(position), db=self._system)

    def _put_long(self, transaction: Transaction, key: bytes, raw: bytes) -> None:
        place, rest, tree = b"", key, self._rows
        while len(place) + len(rest) >= LMDB_KEY_MAX_BYTES:
            room = LMDB_KEY_MAX_BYTES - len(place)
            node = transaction.get(place + rest[:room], db=tree)
            if node is None:
                node = self._new_node(transaction)
                transaction.put(place + rest[:room], node, db=tree)
            place, rest, tree = bytes(node), rest[room:], self._overflow
        transaction.put(place + rest, raw, db=tree)

    def _new_node(self, transaction: Transaction) -> bytes:
        node = bytes(transaction.get(_NEXT_NODE_KEY, _NODE.pack(1), db=self._system))
        transaction.put(_NEXT_NODE_KEY, _NODE.pack(_NODE.unpack(node)[0] + 1), db=self._system)
        return node

    def _delete_long(self, transaction: Transaction, key: bytes) -> None:
        """Remove a row, and every node above it that it leaves empty."""
        above: list[tuple[bytes, Any]] = []
        place, rest, tree = b"", key, self._rows
        while len(place) + len(rest) >= LMDB_KEY_MAX_BYTES:
            room = LMDB_KEY_MAX_BYTES - len(place)
            pointer = place + rest[:room]
            node = transaction.get(pointer, db=tree)
            if node is None:
                return
            above.append((pointer, tree))
            place, rest, tree = bytes(node), rest[room:], self._overflow
        if not transaction.delete(place + rest, db=tree):
            return
        while above:
            cursor = transaction.cursor(db=self._overflow)
            if cursor.set_range(place) and bytes(cursor.key()).startswith(place):
                return
            pointer, tree = above.pop()
            transaction.delete(pointer, db=tree)
            place = pointer[: _NODE.size]
