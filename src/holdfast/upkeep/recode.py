"""Recode: brings every content to another code, one after the other.

The catalogue writes a content anew and swaps its row; this only decides which, and remembers where it was. Contents
that were written with the old code meanwhile are caught by another pass: the last one finds nothing to do.
"""

from holdfast.core.clock import Clock
from holdfast.core.errors import Corrupt, Unavailable
from holdfast.core.ids import ContentId
from holdfast.erasure.code import Code, Matrix
from holdfast.upkeep.interface import Catalogue
from holdfast.upkeep.progress import Record, Saver, load
from holdfast.upkeep.worker import TRANQUILITY_TIDYING, State, Wake

LOOK_SECONDS = 60.0

# Contents passed over in one step because they have the code already.
SKIP_MAX_COUNT = 1000


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
    """Have everything recoded: the worker of whichever process runs one takes it up."""
    record = RecodeRecord(matrix=code.matrix.value, k=code.k, m=code.m)
    await Saver(catalogue, Recoder.name, clock).save(record)


class Recoder:
    """The worker. One step is one content."""

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
        skipped = 0
        async for entry in self._catalogue.contents(ContentId(record.after) if record.after else None):
            record.after = entry.content
            if entry.code != record.code:
                await self._recode(record, entry.content)
            else:
                skipped += 1
            if entry.code != record.code or skipped == SKIP_MAX_COUNT:
                await self._saver.save(record)
                return State.BUSY
        return await self._end_pass(record)

    async def wait_for_work(self) -> None:
        await self._wake.wait(LOOK_SECONDS)

    async def _recode(self, record: RecodeRecord, content: ContentId) -> None:
        try:
            length = await self._catalogue.recode(content, record.code)
        except (Corrupt, Unavailable):
            record.failed += 1
            return
        if length:
            record.recoded += 1
            record.recoded_bytes += length
            record.recoded_in_pass += 1

    async def _end_pass(self, record: RecodeRecord) -> State:
        again = record.recoded_in_pass > 0
        record.after, record.recoded_in_pass = b"", 0
        if again:
            record.failed = 0
        else:
            record.matrix = ""
        await self._saver.save(record)
        return State.BUSY if again else State.IDLE
