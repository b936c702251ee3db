"""Recode: brings every content to another code, several small ones at once, a large one piece by piece.

The catalogue writes a content anew, swaps its row, and remembers how much of it was written; this only decides which,
and remembers behind which it was. Contents that were written with the old code meanwhile are caught by another pass:
the last one finds nothing to do.
"""

import asyncio
from collections.abc import Sequence

from holdfast.core.clock import Clock
from holdfast.core.errors import Corrupt, Full, NotFound, Unavailable
from holdfast.core.ids import ContentId
from holdfast.core.limits import MIB
from holdfast.erasure.code import Code, Matrix
from holdfast.upkeep.interface import Catalogue
from holdfast.upkeep.progress import Record, Saver, load
from holdfast.upkeep.worker import TRANQUILITY_TIDYING, State, Wake

LOOK_SECONDS = 60.0

# Contents passed over in one step, because they have the code already or could be read.
SKIP_MAX_COUNT = 1000

# Contents written anew side by side in one step: what one of some KiB waits for is commits and syncs.
AT_ONCE_MAX_COUNT = 16
AT_ONCE_MAX_BYTES = 16 * MIB


class RecodeRecord(Record):
    """The order that was given and where it stands."""

    matrix: str = ""
    """Empty: no order."""
    k: int = 0
    m: int = 0
    after: bytes = b""
    recoded: int = 0
    recoded_bytes: int = 0
    recoded_in_pass: int = 0
    failed: int = 0
    """Contents of the last pass that could not be read now: tried again when the order is given again."""

    @property
    def code(self) -> Code:
        return Code(Matrix(self.matrix), self.k, self.m)


async def order(catalogue: Catalogue, code: Code, clock: Clock) -> None:
    """Have everything recoded: the worker of whichever process runs one takes it up. Not while one is at work, which
    would put its own order back."""
    record = RecodeRecord(matrix=code.matrix.value, k=code.k, m=code.m)
    await Saver(catalogue, Recoder.name, clock).save(record)


class Recoder:
    """The worker. One step is some small contents, or a piece of a large one."""

    name = "recode"
    tranquility = TRANQUILITY_TIDYING

    def __init__(self, catalogue: Catalogue, clock: Clock) -> None:
        self._catalogue = catalogue
        self._saver = Saver(catalogue, self.name, clock)
        self._wake = Wake(clock)
        self._record = RecodeRecord()

    def status(self) -> str:
        record = self._record
        if not record.matrix and not record.recoded:
            return ""
        said = f"{record.recoded} contents, {record.recoded_bytes} bytes recoded"
        return f"{said}, {record.failed} unreadable" if record.failed else said

    def wake(self) -> None:
        self._wake.set()

    async def work(self) -> State:
        # Read anew each time: the order may have come from another process, and one content outweighs one row.
        record = self._record = await load(self._catalogue, self.name, RecodeRecord)
        if not record.matrix:
            return State.IDLE
        behind, batch = await self._choose(record)
        if behind == record.after and not batch:
            return await self._end_pass(record)
        if await self._recode(record, batch):
            record.after = behind
        await self._saver.save(record)
        return State.BUSY

    async def wait_for_work(self) -> None:
        await self._wake.wait(LOOK_SECONDS)

    async def _choose(self, record: RecodeRecord) -> tuple[bytes, Sequence[ContentId]]:
        """What to recode in this step, and behind which content the next one goes on."""
        behind, batch, passed, total = record.after, list[ContentId](), 0, 0
        async for entry in self._catalogue.contents(ContentId(behind) if behind else None):
            if entry.begun or entry.code != record.code:
                if batch and total + entry.length > AT_ONCE_MAX_BYTES:
                    break
                batch.append(entry.content)
                total += entry.length
            behind = entry.content
            passed += 1
            if len(batch) == AT_ONCE_MAX_COUNT or total >= AT_ONCE_MAX_BYTES or passed == SKIP_MAX_COUNT:
                break
        return behind, batch

    async def _recode(self, record: RecodeRecord, batch: Sequence[ContentId]) -> bool:
        """Whether they are all done with; a large one, which comes alone, may have more pieces. Raises Full, which the
        others would meet as well."""
        calls = [self._catalogue.recode(content, record.code) for content in batch]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        whole = True
        for outcome in outcomes:
            if isinstance(outcome, Corrupt | Unavailable) and not isinstance(outcome, Full):
                record.failed += 1
            elif isinstance(outcome, NotFound):
                pass
            elif isinstance(outcome, BaseException):
                raise outcome
            elif outcome.bytes:
                record.recoded += outcome.whole
                record.recoded_bytes += outcome.bytes
                record.recoded_in_pass += 1
                whole = whole and outcome.whole
        return whole

    async def _end_pass(self, record: RecodeRecord) -> State:
        again = record.recoded_in_pass > 0
        record.after, record.recoded_in_pass = b"", 0
        if again:
            record.failed = 0
        else:
            record.matrix = ""
        await self._saver.save(record)
        return State.BUSY if again else State.IDLE
