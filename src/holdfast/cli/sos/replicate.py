"""`sos replicate`: one run of replication, or one every so many seconds."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import uvloop

from holdfast.cli.sos.environment import SECRET_VARIABLE, SPOOL_VARIABLE, servers_from_environment
from holdfast.cli.system import SystemClock
from holdfast.core.errors import InvalidRequest
from holdfast.gateways.sos.blob_client import BlobClient, open_session
from holdfast.gateways.sos.replicate import Options, Replicator, Report
from holdfast.gateways.sos.servers import table


def run(options: Options, daemon_seconds: float | None, echo: Callable[[str], None]) -> bool:
    """Whether every object that could be is where it should be; of a daemon that was stopped, True. Secrets, servers
    and spool are in the environment."""
    if options.min_copies < 1:
        raise InvalidRequest("-min-copies is at least 1")
    if daemon_seconds is not None and not daemon_seconds > 0:
        raise InvalidRequest("-daemon is a number of seconds, more than 0")
    try:
        return uvloop.run(_run(options, daemon_seconds, echo)).well
    except asyncio.CancelledError:
        if daemon_seconds is None:
            echo("stopped before the end: the next run takes it up")
        return daemon_seconds is not None


async def _run(options: Options, daemon_seconds: float | None, echo: Callable[[str], None]) -> Report:
    servers = servers_from_environment()
    if not servers.all:
        raise InvalidRequest("there are no blob servers: name them in ~/.sos.conf, or with -blob-server a,b")
    if options.verbose:
        echo(table(servers.all))
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    secret, clock = os.environ.get(SECRET_VARIABLE, ""), SystemClock()
    async with open_session() as session:
        replicator = Replicator(
            servers,
            lambda server: BlobClient(session, server, secret),
            Path(os.environ[SPOOL_VARIABLE]),
            clock,
            echo,
        )
        while True:
            report = await replicator.run(options)
            if options.verbose or not report.well:
                echo(str(report))
            if daemon_seconds is None:
                return report
            await clock.sleep(daemon_seconds)
