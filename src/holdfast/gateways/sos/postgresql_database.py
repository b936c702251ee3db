"""Blobs in PostgreSQL: a row for each blob, a row for each piece of it.

An upload is one transaction, so nothing of it is seen before its end, and nothing is left of one that broke off. Two
uploads of one id meet at the primary key: the second waits for the first, and then sees that the id is taken. A
reader asks for a piece at a time and keeps no transaction open.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import msgspec

from holdfast.core.errors import Full, HoldfastError, Unavailable
from holdfast.core.ids import Buffer
from holdfast.gateways.sos.blobs import Sum
from holdfast.gateways.sos.pieces import Head, cut

_PAGE_IDS = 1000

# Any number, the same in every process: two that create tables at once would be in each other's way.
_SCHEMA_LOCK = 0x736F73

# EXTERNAL: bytes are not compressed again, and a piece is fetched without decompressing it.
_SCHEMA = """
create table if not exists sos_blob (
    id text collate "C" primary key,
    upload text not null,
    size bigint not null,
    sha256 bytea not null,
    headers text not null,
    pieces integer not null
);
create table if not exists sos_piece (
    upload text collate "C" not null,
    number integer not null,
    data bytea not null,
    primary key (upload, number)
);
alter table sos_piece alter column data set storage external;
"""


class PostgresqlDatabase:
    """`Database` in two tables of a PostgreSQL database."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    @classmethod
    async def connect(cls, url: str, *, connections: int, timeout_seconds: float) -> "PostgresqlDatabase":
        """The tables are made if they are not there. Commands that take longer than `timeout_seconds` have failed.
        Raises Unavailable."""
        with _mapped():
            pool = await asyncpg.create_pool(
                url,
                min_size=1,
                max_size=connections,
                command_timeout=timeout_seconds,
                server_settings={"synchronous_commit": "on"},
            )
            async with pool.acquire() as connection, connection.transaction():
                await connection.execute("select pg_advisory_xact_lock($1)", _SCHEMA_LOCK)
                if not await connection.fetchval("select to_regclass('sos_piece')"):
                    await connection.execute(_SCHEMA)
        return cls(pool)

    async def warnings(self) -> list[str]:
        """What the server's configuration does not promise."""
        with _mapped():
            off = [name for name in ("fsync", "full_page_writes") if await self._pool.fetchval(f"show {name}") == "off"]
        return [f"this PostgreSQL is relaxed: with `{name} = off` a crash loses blobs" for name in off]

    async def find(self, id: str) -> Head | None:
        with _mapped():
            row = await self._pool.fetchrow("select * from sos_blob where id = $1", id)
        if row is None:
            return None
        headers = msgspec.json.decode(row["headers"], type=dict[str, str])
        return Head(Head.FORMAT, row["size"], row["sha256"].hex(), row["upload"], headers, row["pieces"])

    async def insert(
        self, id: str, upload: str, body: AsyncIterator[Buffer], headers: Mapping[str, str], came: Sum
    ) -> bool:
        count = 0
        with _mapped():
            async with self._pool.acquire() as connection:
                transaction = connection.transaction()
                await transaction.start()
                try:
                    async for piece in cut(body):
                        await came.update(piece)
                        await connection.execute("insert into sos_piece values ($1, $2, $3)", upload, count, piece)
                        count += 1
                    added = await connection.fetchval(
                        "insert into sos_blob values ($1, $2, $3, $4, $5, $6) on conflict do nothing returning true",
                        id, upload, came.size, came.digest(), msgspec.json.encode(headers).decode(), count,
                    )  # fmt: skip
                except BaseException:
                    # A connection that is broken is not used again, and its transaction is gone.
                    with suppress(HoldfastError), _mapped():
                        await transaction.rollback()
                    raise
                await (transaction.commit() if added else transaction.rollback())
                return bool(added)

    async def pieces(self, id: str, head: Head) -> AsyncGenerator[bytes | None, None]:
        for number in range(head.pieces):
            with _mapped():
                piece = await self._pool.fetchval(
                    "select data from sos_piece where upload = $1 and number = $2", head.upload, number
                )
            yield piece

    async def ids(self) -> AsyncIterator[Sequence[str]]:
        after = ""
        while True:
            with _mapped():
                rows = await self._pool.fetch(
                    "select id from sos_blob where id > $1 order by id limit $2", after, _PAGE_IDS
                )
            if not rows:
                return
            yield [row["id"] for row in rows]
            after = rows[-1]["id"]

    async def delete(self, id: str) -> None:
        with _mapped():
            await self._pool.execute(
                "with gone as (delete from sos_blob where id = $1 returning upload)"
                " delete from sos_piece using gone where sos_piece.upload = gone.upload",
                id,
            )

    async def close(self) -> None:
        await self._pool.close()


@contextmanager
def _mapped() -> Generator[None, None, None]:
    """PostgreSQL's errors as ours."""
    try:
        yield
    except (asyncpg.DiskFullError, asyncpg.OutOfMemoryError) as error:
        raise Full(f"PostgreSQL: {error}") from None
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
        raise Unavailable(f"PostgreSQL: {error}") from None
