"""The gateway over a store in memory, as a module that any ASGI server can be pointed at. One worker only."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from holdfast.core.errors import NotFound
from holdfast.gateways.s3 import Services, Settings, create_app
from holdfast.objects.access import ROOT, Access
from tests.unit.objects.world import World

ACCESS_KEY = "AKIDEXAMPLE"
SECRET_KEY = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"


class SystemClock:
    def now_ns(self) -> int:
        return time.time_ns()

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class SystemRandomness:
    def bytes(self, count: int) -> bytes:
        return os.urandom(count)


class OneKey:
    """Credentials of one key pair."""

    def secret(self, access_key: str) -> str:
        if access_key != ACCESS_KEY:
            raise NotFound(access_key)
        return SECRET_KEY

    def access(self, access_key: str) -> Access:
        return ROOT


async def ready() -> None:
    """Always."""


@asynccontextmanager
async def open_services() -> AsyncIterator[Services]:
    world = await World.open()
    yield Services(world.store, OneKey(), ready)
    await world.close()


app = create_app(
    open_services,
    clock=SystemClock(),
    randomness=SystemRandomness(),
    settings=Settings(domains=("localhost",)),
)
