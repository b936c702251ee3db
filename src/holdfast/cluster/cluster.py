"""The cluster: blocks over many drives, written and read. `heal` brings them home and deletes them.

The only room that talks to more than one drive. It knows fragments and where they belong, and never a key.

Invariants.
- `put` returns only when the code's write quorum, min(n, k+1), is durable. What is not at home is named.
- `get` returns only bytes that the block's id commits to.
- Every method may be cancelled at any moment and leaves no task behind.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Executor
from typing import TypeVar

from holdfast.cluster.latency import Latency
from holdfast.cluster.patience import PatientThreads
from holdfast.cluster.places import Places
from holdfast.cluster.read import SLOW_READER_SECONDS, Damage, Read
from holdfast.cluster.slow import SlowDrives
from holdfast.cluster.write import SLOW_WRITER_SECONDS, Write, Written
from holdfast.core.clock import Clock
from holdfast.core.errors import Corrupt, NotEnoughFragments
from holdfast.core.ids import Buffer, DriveId
from holdfast.drives.interface import Drive
from holdfast.erasure import BlockRef, CodedBlock
from holdfast.placement import Layout

T = TypeVar("T")

OnDamage = Callable[[BlockRef, int, DriveId | None, str], None]
"""Told of a fragment that is bad (on which drive) or missing (None), and why. Called on the event loop: no waiting."""


class Cluster:
    """Blocks over the drives of a mapping, which its owner may change at any time."""

    def __init__(
        self,
        drives: Mapping[DriveId, Drive],
        layouts: Sequence[Layout] = (),
        *,
        clock: Clock,
        on_damage: OnDamage | None = None,
        executor: Executor | None = None,
        patient: Executor | None = None,
    ) -> None:
        """`executor` checks and joins large blocks; None is the event loop's own. `patient` has threads that may wait
        for disks; None makes some."""
        self._places = Places(drives, executor)
        self._drives = drives
        self._clock = clock
        self._on_damage = on_damage
        self._executor = executor
        self._slow_writers = SlowDrives(clock, SLOW_WRITER_SECONDS)
        self._slow_readers = SlowDrives(clock, SLOW_READER_SECONDS)
        self._latency = Latency()
        self._patient = PatientThreads(patient)
        if layouts:
            self.use(layouts)

    def use(self, layouts: Sequence[Layout]) -> None:
        """Place new blocks by the newest of these layouts and look for old ones by all of them.

        Writes in flight end by the layout that they began with. Raises InvalidRequest when there are none or too many.
        """
        self._places.use(layouts)

    async def put(self, block: CodedBlock, tag: bytes) -> Written:
        """Write all fragments; durable to the quorum on return.

        Raises Full, NotEnoughFragments, Timeout when the drives are too busy, and InvalidRequest when a drive refuses a
        fragment by its limits. When it raises or is cancelled, any of the fragments may be there.
        """
        table = await self._places.newest(block.ref.code.width)
        order = table.drives(block.ref.id)
        write = Write(block, tag, order, self._drives, self._slow_writers, self._clock)
        return Written(await write.run(), table.version)

    async def get(self, ref: BlockRef, then: Callable[[Buffer], T]) -> T:
        """`then` of the sealed block of `ref.length` bytes, called where it was joined: in a thread if it is large.

        Raises Corrupt when every drive answered, and there are too few good fragments and bad ones beside them;
        NotEnoughFragments otherwise, also when no drive knows anything of it; and what `then` raises.
        """
        homes = await self._places.homes(ref)
        read = Read(
            ref,
            homes,
            self._drives,
            self._slow_readers,
            self._latency,
            self._clock,
            self._executor,
            self._patient,
        )
        try:
            result = await read.run(then)
        except (Corrupt, NotEnoughFragments):
            self._report(ref, read.damage)
            raise
        self._report(ref, read.damage)
        return result

    def _report(self, ref: BlockRef, damage: Collection[Damage]) -> None:
        if self._on_damage is not None:
            for found in damage:
                self._on_damage(ref, found.index, found.drive, found.reason)
