"""`recode`: existing contents, written anew with another code."""

from holdfast.cli.opening import OpenStore
from holdfast.cli.output import Output, count, size
from holdfast.cli.turns import RECODING, InTurn, turn
from holdfast.cli.upkeep import chores_of
from holdfast.upkeep.progress import load
from holdfast.upkeep.recode import Recoder, RecodeRecord, order
from holdfast.upkeep.worker import State


async def recode(opened: OpenStore, output: Output) -> bool:
    """Bring every content to the store's code; whether none was left out."""
    chores, code = chores_of(opened), opened.code
    total = 0
    async for entry in chores.catalogue.contents():
        total += entry.length if entry.code != code else 0
    async with turn(opened.run, RECODING, opened.clock):
        await order(chores.catalogue, code, opened.clock)
    recoder = InTurn(Recoder(chores.catalogue, opened.clock), opened.run, RECODING, opened.clock)
    with output.progress(f"recode to {code}", total) as progress:
        while await recoder.work() is State.BUSY:
            progress.at((await load(chores.catalogue, Recoder.name, RecodeRecord)).recoded_bytes, total)
    record = await load(chores.catalogue, Recoder.name, RecodeRecord)
    output.say(f"{count(record.recoded, 'content')} ({size(record.recoded_bytes)}) written anew as {code}")
    if record.failed:
        output.say(f"{count(record.failed, 'content')} could not be read now: `holdfast repair`, then `recode` again")
    output.document(
        {
            "code": str(code),
            "recoded": record.recoded,
            "recoded_bytes": record.recoded_bytes,
            "failed": record.failed,
        }
    )
    return not record.failed
