"""A drive that misbehaves on request: a wrapper around any other."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from holdfast.core.errors import NodeDown
from holdfast.core.ids import DriveId
from holdfast.core.ranges import ByteRange
from holdfast.drives.interface import Drive, DriveUsage, Fragment, FragmentInfo, FragmentKey, FragmentPart


@dataclass(slots=True)
class Trouble:
    """What is wrong with a drive; a test switches it on and off while calls come in."""

    error: Exception | None = None
    """Raised by every call, or only by those named in `only`."""
    only: frozenset[str] = frozenset()
    """Methods that misbehave; empty means all but `close`."""
    skip: int = 0
    """Calls that go well first."""
    after: bool = False
    """The error comes when the call has taken effect: a reply that was lost."""
    gate: asyncio.Event | None = None
    """Calls wait until it is set: as slow as a test wants it, without a clock."""
    corrupt: set[FragmentKey] = field(default_factory=set)
    """`get` returns these with a flipped bit, as if no checksum had noticed."""
    lost: set[FragmentKey] = field(default_factory=set)
    """These are acknowledged, then nowhere: neither found nor listed."""


class FaultyDrive:
    """`drive`, with `trouble`."""

    def __init__(self, drive: Drive) -> None:
        self.drive = drive
        self.trouble = Trouble()
        self.calls: dict[str, int] = {}
        """How often each method was called."""

    @property
    def id(self) -> DriveId:
        return self.drive.id

    def go_down(self) -> None:
        """Answer nothing any more."""
        self.trouble.error = NodeDown(f"drive {self.id.hex()} was switched off by the test")

    def recover(self) -> None:
        """Behave from now on; what is lost stays lost."""
        self.trouble = Trouble(lost=self.trouble.lost)

    async def put(self, fragments: Sequence[Fragment]) -> None:
        error = await self._meet("put")
        if error is None or self.trouble.after:
            await self.drive.put(fragments)
        if error is not None:
            raise error

    async def get(self, key: FragmentKey, range: ByteRange | None = None) -> FragmentPart:
        error = await self._meet("get")
        if error is not None:
            raise error
        await self._lose()
        part = await self.drive.get(key, range)
        if key in self.trouble.corrupt and len(part.data):
            data = bytearray(part.data)
            data[len(data) // 2] ^= 1
            return msgspec.structs.replace(part, data=bytes(data))
        return part

    def get_at_once(self, key: FragmentKey, into: memoryview | None = None) -> FragmentPart:
        raise BlockingIOError

    def get_here(self, key: FragmentKey, into: memoryview | None = None) -> FragmentPart:
        raise BlockingIOError

    def expect(self, key: FragmentKey) -> None:
        pass

    async def has(self, keys: Sequence[FragmentKey]) -> list[bool]:
        error = await self._meet("has")
        if error is not None:
            raise error
        await self._lose()
        return await self.drive.has(keys)

    async def delete(self, keys: Sequence[FragmentKey]) -> None:
        error = await self._meet("delete")
        if error is None or self.trouble.after:
            await self.drive.delete(keys)
        if error is not None:
            raise error

    async def list(self, after: FragmentKey | None = None, limit: int = 1000) -> list[FragmentInfo]:
        error = await self._meet("list")
        if error is not None:
            raise error
        await self._lose()
        return await self.drive.list(after, limit)

    async def usage(self) -> DriveUsage:
        error = await self._meet("usage")
        if error is not None:
            raise error
        return await self.drive.usage()

    async def close(self) -> None:
        await self.drive.close()

    async def _meet(self, method: str) -> Exception | None:
        """The error that this call must raise, after the wait that it must suffer."""
        self.calls[method] = self.calls.get(method, 0) + 1
        trouble = self.trouble
        if trouble.only and method not in trouble.only:
            return None
        if trouble.gate is not None:
            await trouble.gate.wait()
        if trouble.error is not None and trouble.skip > 0:
            trouble.skip -= 1
            return None
        return trouble.error

    async def _lose(self) -> None:
        if self.trouble.lost:
            await self.drive.delete(sorted(self.trouble.lost))
