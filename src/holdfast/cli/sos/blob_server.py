"""`sos blob-server`: a store behind the blob server's routes.

`-store` names a directory, which becomes a Holdfast store of one drive if it is empty or not there; a directory that
holds drives, or nothing but several empty directories, is a store over all of them; so are directories with commas
between. A URL names a database. Over drives, the store's upkeep runs beside the server, as under `holdfast serve`, and
HOLDFAST_* settings hold.
"""

import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, MutableMapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from holdfast.asgi.messages import Receive, Send
from holdfast.cli.opening import find_or_make, open_store
from holdfast.cli.settings import DRIVES_VARIABLE, Settings, from_environment
from holdfast.cli.sos.environment import SECRET_VARIABLE, read_secret
from holdfast.cli.sos.serving import granian
from holdfast.cli.supervisor import supervise
from holdfast.cli.system import SystemClock, SystemRandomness, keep_freed_memory
from holdfast.cli.upkeep import run as run_upkeep
from holdfast.core.errors import HoldfastError, InvalidRequest
from holdfast.drives.identity import IDENTITY_NAME
from holdfast.drives.os_disk import OsDisk
from holdfast.gateways.sos.blob_server import BlobServer
from holdfast.gateways.sos.blobs import BlobStore
from holdfast.gateways.sos.database_blobs import DatabaseBlobs
from holdfast.gateways.sos.object_blobs import ObjectBlobs

STORE_VARIABLE = "SOS_STORE"

# Of each worker to its database: as many uploads can be under way at once.
CONNECTIONS_COUNT = 16

# A database that does not answer a command within this is not there.
DATABASE_MAX_SECONDS = 30.0

_LOGGER = logging.getLogger(__name__)

Opener = Callable[[str], AbstractAsyncContextManager[BlobStore]]


def run(
    host: str, port: int, store: str, workers: int | None, secret_file: str | None, echo: Callable[[str], None]
) -> None:
    """Until SIGINT or SIGTERM. Raises HoldfastError when the store cannot be made or opened."""
    os.environ[SECRET_VARIABLE] = read_secret(secret_file, SECRET_VARIABLE)
    os.environ[STORE_VARIABLE] = store
    children = {"server": lambda: granian(f"{__name__}:application", host, port, workers).serve()}
    if scheme(store) not in _OPENERS:
        raise InvalidRequest(f"-store: {scheme(store)}:// is none of: {', '.join(filter(None, _OPENERS))}")
    _check_address(store)
    if scheme(store) == "":
        os.environ[DRIVES_VARIABLE] = ":".join(str(path.absolute()) for path in directories(store))
        settings = from_environment()
        _in_child(lambda: _make(settings))
        children["upkeep"] = lambda: run_upkeep(settings)
    echo(f"blob-server available at http://{host}:{port}/\nUploads will be written beneath: {without_password(store)}")
    supervise(children)


def scheme(store: str) -> str:
    """Of a URL: what stands before "://"; "" for directories."""
    before, separator, _ = store.partition("://")
    return before if separator else ""


def _check_address(store: str) -> None:
    """Raises InvalidRequest for what each worker would fail at. It is not shown: a password may be in it."""
    try:
        _ = urlsplit(store).port if scheme(store) else None
    except ValueError:
        raise InvalidRequest("-store: behind the host and a colon stands the port's number") from None


def without_password(store: str) -> str:
    """A URL as it may be shown. Its parameters may hold a password, too."""
    name = scheme(store)
    if not name:
        return store
    address = store.removeprefix(f"{name}://")
    return f"{name}://{address.rpartition('@')[2].partition('?')[0]}"


def directories(store: str) -> list[Path]:
    """The drives' directories that `-store` means. Raises InvalidRequest."""
    named = [Path(part) for part in store.split(",") if part]
    if not named:
        raise InvalidRequest("-store names no directory")
    if len(named) > 1 or not named[0].is_dir() or (named[0] / IDENTITY_NAME).exists():
        return named
    inside = sorted(path for path in named[0].iterdir() if path.name != "lost+found")
    drives = [path for path in inside if path.is_dir() and ((path / IDENTITY_NAME).exists() or _is_empty(path))]
    holds_one = any((path / IDENTITY_NAME).exists() for path in drives)
    return drives if holds_one or (len(drives) > 1 and drives == inside) else named


def _is_empty(path: Path) -> bool:
    return not any(entry.name != "lost+found" for entry in path.iterdir())


def _make(settings: Settings) -> None:
    find_or_make(settings, OsDisk(), SystemRandomness(), SystemClock())


def _in_child(action: Callable[[], None]) -> None:
    """Run `action` in a process of its own: LMDB and threads must not be there when workers are forked."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            action()
            status = 0
        except HoldfastError as error:
            os.write(writer, str(error).encode())
        except BaseException:  # the top of a process: said, and then it ends
            _LOGGER.exception("the store could not be made")
        finally:
            sys.stderr.flush()
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    if status:
        raise HoldfastError(said or "the store could not be made; see above")


# A database's client is loaded by whoever has that database: some take a second and 20 MiB.


@asynccontextmanager
async def _open_objects(store: str) -> AsyncIterator[BlobStore]:
    async with open_store(from_environment()) as opened:
        yield await ObjectBlobs.open_bucket(opened.store)


@asynccontextmanager
async def _open_redis(store: str) -> AsyncIterator[BlobStore]:
    from redis.asyncio import Redis

    from holdfast.gateways.sos.redis_database import RedisDatabase, warnings_of

    client = Redis.from_url(store, socket_timeout=DATABASE_MAX_SECONDS, decode_responses=False)
    blobs = DatabaseBlobs(RedisDatabase(client), SystemRandomness())
    try:
        _warn(await warnings_of(client))
        yield blobs
    finally:
        await blobs.close()


@asynccontextmanager
async def _open_postgresql(store: str) -> AsyncIterator[BlobStore]:
    from holdfast.gateways.sos.postgresql_database import PostgresqlDatabase

    database = await PostgresqlDatabase.connect(
        store, connections=CONNECTIONS_COUNT, timeout_seconds=DATABASE_MAX_SECONDS
    )
    blobs = DatabaseBlobs(database, SystemRandomness())
    try:
        _warn(await database.warnings())
        yield blobs
    finally:
        await blobs.close()


@asynccontextmanager
async def _open_memcached(store: str) -> AsyncIterator[BlobStore]:
    from holdfast.gateways.sos.memcached_database import LineClient, MemcachedDatabase

    address = urlsplit(store)
    client = LineClient(
        address.hostname or "localhost",
        address.port or 11211,
        connections=CONNECTIONS_COUNT,
        timeout_seconds=DATABASE_MAX_SECONDS,
    )
    _warn(["memcached is relaxed: it keeps nothing across a restart, and unless it runs with -M not when it is full"])
    blobs = DatabaseBlobs(MemcachedDatabase(client), SystemRandomness())
    try:
        yield blobs
    finally:
        await blobs.close()


def _warn(warnings: list[str]) -> None:
    for warning in warnings:
        _LOGGER.warning("%s", warning)


_OPENERS: dict[str, Opener] = {
    "": _open_objects,
    "redis": _open_redis,
    "rediss": _open_redis,
    "unix": _open_redis,
    "postgresql": _open_postgresql,
    "postgres": _open_postgresql,
    "memcached": _open_memcached,
}


def build() -> BlobServer:
    """The application of one worker process, from the environment."""
    store = os.environ.get(STORE_VARIABLE, "data")
    opener = _OPENERS[scheme(store)]
    return BlobServer(lambda: opener(store), os.environ.get(SECRET_VARIABLE, ""))


_built: BlobServer | None = None


async def application(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
    """The ASGI callable. It is put together at the first call, in the worker, when nothing will be forked any more."""
    global _built  # noqa: PLW0603  one for each process
    if _built is None:
        keep_freed_memory()
        _built = build()
    await _built(scope, receive, send)
