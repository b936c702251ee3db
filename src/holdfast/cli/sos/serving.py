"""What both servers of sos need to run: granian under the supervisor."""

import os
from typing import Any

from granian import Granian
from granian.constants import HTTPModes, Interfaces, Loops
from granian.http import HTTP1Settings
from granian.log import LogLevels

from holdfast.cli.supervisor import DRAIN_SECONDS, RESPAWN_SECONDS
from holdfast.gateways.sos.blobs import HEADERS_MAX_BYTES


def granian(target: str, host: str, port: int, workers: int | None, verbose: bool = False) -> Any:
    """A server of the ASGI application `target`, "module:name". `serve()` runs it until it is told to end."""
    return Granian(
        target,
        address=host,
        port=port,
        interface=Interfaces.ASGI,
        workers=workers or os.cpu_count() or 1,
        loop=Loops.uvloop,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(max_buffer_size=HEADERS_MAX_BYTES * 4),
        websockets=False,
        respawn_failed_workers=True,
        respawn_interval=RESPAWN_SECONDS,
        workers_kill_timeout=DRAIN_SECONDS,
        log_access=False,
        # Of what goes well only ours is said.
        log_level=LogLevels.warning,
        log_dictconfig=logging_config(verbose),
    )


def logging_config(verbose: bool) -> dict[str, Any]:
    """Lines on standard error; with `verbose` what is asked of which blob server, too."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line", "stream": "ext://sys.stderr"}},
        "loggers": {
            "_granian": {"handlers": ["stderr"], "propagate": False},
            "holdfast.gateways.sos": {"level": "DEBUG" if verbose else "INFO"},
        },
        "root": {"level": "INFO", "handlers": ["stderr"]},
    }
