"""The composition root of a worker: the S3 gateway over a store, as a plain ASGI application, and air beside it.

`holdfast serve` starts workers with `holdfast.cli.app:application`; any other ASGI server can do the same, with the
settings in HOLDFAST_* variables (docs/operating/settings.md). No worker relies on there being a supervisor.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from holdfast.cli.opening import check_ready, open_store, run_directory
from holdfast.cli.settings import Settings, from_environment
from holdfast.cli.site import survey
from holdfast.cli.system import SystemClock, SystemRandomness, keep_freed_memory
from holdfast.core.errors import InvalidRequest
from holdfast.drives.os_disk import OsDisk
from holdfast.gateways.s3.access_log import AccessLog
from holdfast.gateways.s3.app import Application, create_app
from holdfast.gateways.s3.metrics import GatewayCollector, Metrics, render
from holdfast.gateways.s3.metrics_server import MetricsServer
from holdfast.gateways.s3.settings import Services
from holdfast.gateways.s3.settings import Settings as GatewaySettings

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


def build(settings: Settings) -> Application:
    """The application of one worker process."""
    site = survey(OsDisk(), settings.drives)
    if site is None:
        raise InvalidRequest("no drive of a store was found: make one with `holdfast serve DIR...`")
    run = run_directory(settings, site)
    run.mkdir(mode=0o700, exist_ok=True)
    return create_app(
        _services(settings, run),
        clock=SystemClock(),
        randomness=SystemRandomness(),
        settings=GatewaySettings(region=settings.region, domains=(settings.domain,) if settings.domain else ()),
        metrics=Metrics.open(run),
        access_log=_access_log(settings.access_log),
    )


def _services(settings: Settings, run: Path) -> Callable[[], AbstractAsyncContextManager[Services]]:
    @asynccontextmanager
    async def services() -> AsyncIterator[Services]:
        async with open_store(settings) as opened:
            await opened.accounts.start()

            async def ready() -> None:
                await check_ready(opened)

            host, port = settings.metrics_listen
            metrics = MetricsServer(host, port, lambda: render([GatewayCollector(run)]), opened.clock)
            serving = [asyncio.create_task(metrics.run(), name="metrics")]
            if settings.air is not None:
                from holdfast.cli.air import listener  # its server is not loaded where it is not asked for

                serving.append(asyncio.create_task(listener(settings, opened).run(), name="air"))
            try:
                yield Services(opened.store, opened.accounts, ready)
            finally:
                for task in serving:
                    task.cancel()
                await asyncio.gather(*serving, return_exceptions=True)

    return services


def _access_log(path: Path | None) -> AccessLog | None:
    if path is None:
        return None
    if str(path) == "-":
        return AccessLog(lambda line: os.write(sys.stdout.fileno(), line))
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    # O_APPEND: lines of several workers do not mix.
    return AccessLog(lambda line: os.write(descriptor, line))


_built: Application | None = None


async def application(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
    """The ASGI callable. It is put together at the first call, in the worker, when nothing will be forked any more."""
    global _built  # noqa: PLW0603  one for each process
    if _built is None:
        keep_freed_memory()
        _built = build(from_environment())
    await _built(scope, receive, send)
