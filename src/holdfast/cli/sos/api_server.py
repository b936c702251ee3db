"""`sos api-server`: the upload service and the download service, each on its port, over the blob servers of the
configuration."""

import os
from collections.abc import AsyncIterator, Callable, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from holdfast.asgi.messages import Receive, Send
from holdfast.cli.sos.environment import (
    CONFIG_FILES,
    SECRET_VARIABLE,
    SPOOL_VARIABLE,
    TOKEN_VARIABLE,
    servers_from_environment,
)
from holdfast.cli.sos.serving import granian
from holdfast.cli.supervisor import supervise
from holdfast.cli.system import SystemClock, keep_freed_memory
from holdfast.core.errors import InvalidRequest
from holdfast.gateways.sos.api_server import DownloadServer, UploadServer
from holdfast.gateways.sos.blob_client import BlobClient, open_session
from holdfast.gateways.sos.fetch import Fetcher
from holdfast.gateways.sos.fleet import Fleet
from holdfast.gateways.sos.servers import table
from holdfast.gateways.sos.upload import Uploader


def run(host: str, ports: tuple[int, int], workers: int | None, verbose: bool, echo: Callable[[str], None]) -> None:
    """Until SIGINT or SIGTERM. Secrets, servers and spool are in the environment already."""
    upload_port, download_port = ports
    servers = servers_from_environment()
    if not servers.all:
        raise InvalidRequest(f"there are no blob servers: name them in {CONFIG_FILES[1]}, or with -blob-server a,b")
    echo("Launching API-server\n")
    echo(f"Upload service\nhttp://{host}:{upload_port}/upload\n")
    echo(f"Download service\nhttp://{host}:{download_port}/fetch/:id\n")
    echo(f"Blob-servers:\n{table(servers.all)}\n")
    supervise(
        {
            "upload": lambda: granian(f"{__name__}:upload", host, upload_port, workers, verbose).serve(),
            "download": lambda: granian(f"{__name__}:download", host, download_port, workers, verbose).serve(),
        }
    )


@asynccontextmanager
async def _open_fleet() -> AsyncIterator[Fleet]:
    secret = os.environ.get(SECRET_VARIABLE, "")
    async with open_session() as session:
        yield Fleet(servers_from_environment(), lambda server: BlobClient(session, server, secret), SystemClock())


@asynccontextmanager
async def _open_uploader() -> AsyncIterator[Uploader]:
    async with _open_fleet() as fleet:
        yield Uploader(fleet, Path(os.environ[SPOOL_VARIABLE]))


@asynccontextmanager
async def _open_fetcher() -> AsyncIterator[Fetcher]:
    async with _open_fleet() as fleet:
        yield Fetcher(fleet)


_built: dict[str, UploadServer | DownloadServer] = {}


async def upload(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
    """The ASGI callable of the upload service."""
    if "upload" not in _built:
        keep_freed_memory()
        _built["upload"] = UploadServer(_open_uploader, os.environ.get(TOKEN_VARIABLE, ""))
    await _built["upload"](scope, receive, send)


async def download(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
    """The ASGI callable of the download service."""
    if "download" not in _built:
        keep_freed_memory()
        _built["download"] = DownloadServer(_open_fetcher)
    await _built["download"](scope, receive, send)
