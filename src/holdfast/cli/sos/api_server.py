"""`sos api-server`: the upload service and the download service, each on its port, over the blob servers of the
configuration."""

import os
import tempfile
from collections.abc import AsyncIterator, Callable, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from holdfast.asgi.messages import Receive, Send
from holdfast.cli.sos.blob_server import SECRET_VARIABLE
from holdfast.cli.sos.serving import granian, read_secret
from holdfast.cli.supervisor import supervise
from holdfast.cli.system import SystemClock, keep_freed_memory
from holdfast.core.errors import InvalidRequest
from holdfast.gateways.sos.api_server import DownloadServer, UploadServer
from holdfast.gateways.sos.blob_client import BlobClient, open_session
from holdfast.gateways.sos.fetch import Fetcher
from holdfast.gateways.sos.fleet import Fleet
from holdfast.gateways.sos.servers import Servers, table
from holdfast.gateways.sos.upload import Uploader

BLOB_SERVERS_VARIABLE = "SOS_BLOB_SERVERS"
CONFIG_VARIABLE = "SOS_CONFIG"
"""The configuration as it was read by the first process, for its workers."""
TOKEN_VARIABLE = "SOS_UPLOAD_TOKEN"  # noqa: S105  the name of a variable
SPOOL_VARIABLE = "SOS_SPOOL"

CONFIG_FILES = ("/etc/sos.conf", "~/.sos.conf")

# Uploads pass through here. /tmp is memory on many machines.
SPOOL_DIRECTORY = Path("/var/tmp")  # noqa: S108  files there have no name


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


def set_environment(blob_server: str, token_file: str | None, secret_file: str | None, spool: str | None) -> None:
    """Tell workers what the flags and the configuration files say. Raises InvalidRequest."""
    os.environ[TOKEN_VARIABLE] = read_secret(token_file, TOKEN_VARIABLE)
    os.environ[SECRET_VARIABLE] = read_secret(secret_file, SECRET_VARIABLE)
    os.environ[BLOB_SERVERS_VARIABLE] = blob_server
    os.environ[CONFIG_VARIABLE] = "" if blob_server else read_config()
    default = str(SPOOL_DIRECTORY) if SPOOL_DIRECTORY.is_dir() else tempfile.gettempdir()
    chosen = spool or os.environ.get(SPOOL_VARIABLE, default)
    if not Path(chosen).is_dir():
        raise InvalidRequest(f"-spool: {chosen} is no directory")
    os.environ[SPOOL_VARIABLE] = chosen


def read_config() -> str:
    """Both configuration files; one that is not there is empty. Raises InvalidRequest."""
    texts: list[str] = []
    for name in CONFIG_FILES:
        try:
            # A group begins and ends with its file.
            texts.append(f"[default]\n{Path(name).expanduser().read_text()}")
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidRequest(f"{name} cannot be read: {error}") from None
    return "\n".join(texts)


def servers_from_environment() -> Servers:
    listed = os.environ.get(BLOB_SERVERS_VARIABLE, "")
    return Servers.listed(listed) if listed else Servers.parse(os.environ.get(CONFIG_VARIABLE, ""))


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
