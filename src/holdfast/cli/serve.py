"""`holdfast serve`: make or find the store, say how to reach it, and keep its processes running.

The supervisor (`supervisor.py`) has two children: granian's main process, whose children are the workers, and upkeep.
"""

import json
import logging.config
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import uvloop
from granian import Granian
from granian.constants import HTTPModes, Interfaces, Loops, SSLProtocols
from granian.http import HTTP1Settings
from granian.log import LogLevels

from holdfast.cli.certificate import Certificate, listeners
from holdfast.cli.keys import REKEYED_NAME
from holdfast.cli.opening import find_or_make, open_store, run_directory
from holdfast.cli.output import count
from holdfast.cli.settings import Settings
from holdfast.cli.status import missing_drives
from holdfast.cli.supervisor import RESPAWN_SECONDS, Replacement, supervise
from holdfast.cli.system import SystemClock, SystemRandomness
from holdfast.cli.upkeep import run as run_upkeep
from holdfast.core.errors import HoldfastError
from holdfast.core.limits import KIB
from holdfast.drives.os_disk import OsDisk

ROOT_ACCESS_KEY_VARIABLE = "HOLDFAST_ROOT_ACCESS_KEY"
ROOT_SECRET_KEY_VARIABLE = "HOLDFAST_ROOT_SECRET_KEY"  # noqa: S105  the name of a variable

# What a connection reads at once, and so the length of the messages that a large body comes in: each is a hand-over
# from the server's thread to the event loop, so messages of 256 KiB cost half as much again for each byte, and those
# of 1 MiB a tenth less. Also bounds the head of a request.
RECEIVE_BUFFER_BYTES = 512 * KIB


@dataclass(frozen=True, slots=True)
class Ready:
    """What the operator is told once the store is there."""

    made: bool
    access_key: str
    secret_key: str
    drives: int
    missing: list[str]
    code: str
    warnings: list[str]


def serve(settings: Settings, echo: Callable[[str], None]) -> None:
    """Until SIGINT or SIGTERM. Raises HoldfastError when the store cannot be made or opened."""
    ready = _in_child(lambda: _prepare(settings))
    os.environ.update(settings.to_environment())
    for line in banner(settings, ready):
        echo(line)
    # Inherited by upkeep; granian's processes are given the same.
    logging.config.dictConfig(_LOGGING)
    children = {"server": lambda: _granian(settings).serve(), "upkeep": lambda: run_upkeep(settings)}
    supervise(children, _replacement(settings))


def banner(settings: Settings, ready: Ready) -> list[str]:
    """What a newcomer pastes."""
    endpoint = _url(settings, *settings.listen)
    made = "made a new store" if ready.made else "opened the store"
    lines = [f"Holdfast {made}: {count(ready.drives, 'drive')}, {ready.code}, sync {settings.sync}", ""]
    lines += [f"  missing: {path}: its data is read from the other drives" for path in ready.missing]
    lines += [f"  warning: {warning}" for warning in ready.warnings]
    air = [] if settings.air is None else [f"  Air         {_air(settings)}"]
    return [
        *lines,
        f"  Endpoint    {endpoint}",
        f"  Access key  {ready.access_key}",
        f"  Secret key  {ready.secret_key}",
        *air,
        "",
        f"  aws-cli     AWS_ACCESS_KEY_ID={ready.access_key} AWS_SECRET_ACCESS_KEY={ready.secret_key} "
        f"aws --endpoint-url {endpoint} --region {settings.region} s3 mb s3://first",
        f'  boto3       boto3.client("s3", endpoint_url="{endpoint}", aws_access_key_id="{ready.access_key}", '
        f'aws_secret_access_key="{ready.secret_key}", region_name="{settings.region}")',
        "",
    ]


def _url(settings: Settings, host: str, port: int) -> str:
    shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104  compared, not bound
    shown = f"[{shown}]" if ":" in shown else shown
    return f"{'https' if settings.tls_cert else 'http'}://{shown}:{port}"


def _air(settings: Settings) -> str:
    assert settings.air is not None
    if settings.air_token_file is not None:
        return f"{_url(settings, *settings.air)} with the token in {settings.air_token_file}"
    return f"{_url(settings, *settings.air)} open to every user of this machine: see --air-token-file"


async def _open_once(settings: Settings, made: bool) -> Ready:
    given = None
    if access_key := os.environ.get(ROOT_ACCESS_KEY_VARIABLE):
        given = access_key, os.environ.get(ROOT_SECRET_KEY_VARIABLE, "")
    async with open_store(settings) as opened:
        access_key, secret = await opened.accounts.ensure_root(given)
        return Ready(
            made=made,
            access_key=access_key,
            secret_key=secret,
            drives=len(opened.drives),
            missing=sorted({*map(str, opened.site.missing), *missing_drives(opened)}),
            code=str(opened.code),
            warnings=[*opened.site.warnings, *map(_unnamed, opened.site.unnamed)],
        )


def _unnamed(path: Path) -> str:
    return f"{path} belongs to this store and was not named: add it to the list of directories"


def _prepare(settings: Settings) -> Ready:
    if settings.air is not None:
        from holdfast.cli.air import check  # its server is not loaded where it is not asked for

        check(settings)
    site, made = find_or_make(settings, OsDisk(), SystemRandomness(), SystemClock())
    # Whatever wrapped the keyring anew before, these processes are given the key that it needs now.
    (run_directory(settings, site) / REKEYED_NAME).unlink(missing_ok=True)
    return uvloop.run(_open_once(settings, made))


def _in_child(action: Callable[[], Ready]) -> Ready:
    """Run `action` in a process of its own: LMDB and threads must not be there when workers are forked."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        with os.fdopen(writer, "w") as pipe:
            try:
                ready = action()
                answer: dict[str, Any] = {"ready": {name: getattr(ready, name) for name in Ready.__slots__}}
                status = 0
            except HoldfastError as error:
                answer, status = {"error": str(error)}, 1
            json.dump(answer, pipe)
        os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    answer = json.loads(text) if text else {"error": "the store could not be opened; see above"}
    if "error" in answer:
        raise HoldfastError(answer["error"])
    return Ready(**answer["ready"])


def _replacement(settings: Settings) -> Replacement | None:
    """A server with a certificate gives way to one with a newer certificate."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    certificate = Certificate(settings.tls_cert, settings.tls_key)
    sockets = partial(listeners, settings.listen[1])
    return Replacement("server", certificate.renewed, sockets, _workers(settings))


def _workers(settings: Settings) -> int:
    return settings.workers or os.cpu_count() or 1


def _granian(settings: Settings) -> Any:
    host, port = settings.listen
    return Granian(
        "holdfast.cli.app:application",
        address=host,
        port=port,
        interface=Interfaces.ASGI,
        workers=_workers(settings),
        loop=Loops.uvloop,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(max_buffer_size=RECEIVE_BUFFER_BYTES),
        websockets=False,
        ssl_cert=settings.tls_cert,
        ssl_key=settings.tls_key,
        ssl_protocol_min=SSLProtocols.tls12,
        respawn_failed_workers=True,
        respawn_interval=RESPAWN_SECONDS,
        # When the server stops, the supervisor ends the waiting; when it is replaced, nobody does.
        workers_kill_timeout=None,
        log_access=False,
        # Of what goes well only ours is said.
        log_level=LogLevels.warning,
        log_dictconfig=_LOGGING,
    )


_LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line", "stream": "ext://sys.stderr"}},
    "loggers": {"_granian": {"handlers": ["stderr"], "propagate": False}},
    "root": {"level": "INFO", "handlers": ["stderr"]},
}
