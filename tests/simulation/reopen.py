"""Opening a store in a process of its own, as a restart does, and reading all that is in it.

Directories that a power cut left may make LMDB, or us, crash the process: that is a finding, so it must not take the
test down with it. A fork server that has everything imported makes a reopening cost a fraction of a second.
"""

import asyncio
import contextlib
import io
import multiprocessing
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from holdfast.cli.opening import OpenStore, find_or_make, open_store
from holdfast.cli.output import Output
from holdfast.cli.repair import check, repair
from holdfast.cli.settings import load
from holdfast.cli.system import SystemClock, SystemRandomness
from holdfast.core.errors import HoldfastError
from holdfast.drives.os_disk import OsDisk
from holdfast.objects.errors import NoSuchBucket
from holdfast.objects.model import PutOptions
from holdfast.objects.store import Store
from holdfast.testing.shared_memory import in_memory
from holdfast.testing.workload import body_fault
from tests.simulation.planted.bugs import BUGS
from tests.simulation.upkeep_scenario import collect, replace_missing

REOPEN_MAX_SECONDS = 60.0

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([__name__])


@dataclass(frozen=True, slots=True)
class Contents:
    """What a reopened store holds."""

    etags: dict[str, str]
    """Of every object that opens, by key."""
    listed: dict[str, str]
    faults: tuple[str, ...]
    """Wrong bytes, errors, crashes: each a failed proof."""


def reopen(
    directories: Sequence[Path], bucket: str, keys: Sequence[str], bug: str = "", *, spare: Path | None = None
) -> Contents:
    """Open the store in `directories`, read `keys` and whatever is listed, write something, close.

    What is condemned is collected without any grace, and everything read again: nothing that is referred to may go.
    `bug` is the name of one that is planted in that process, too. With a `spare` directory, one of `directories`, a
    drive may be missing: it takes its place, if that was not done before, and then nothing may be left to repair.
    """
    receiver, sender = _CONTEXT.Pipe(duplex=False)
    child = _CONTEXT.Process(
        target=_child, args=(sender, list(directories), bucket, list(keys), bug, spare), daemon=True
    )
    child.start()
    sender.close()
    try:
        found = receiver.recv() if receiver.poll(REOPEN_MAX_SECONDS) else f"no end after {REOPEN_MAX_SECONDS:.0f} s"
    except EOFError:
        child.join(5)
        found = f"the process ended with {child.exitcode}"
    if child.is_alive():
        child.join(5)
        child.kill()
    child.join()
    return found if isinstance(found, Contents) else Contents({}, {}, (str(found),))


def _boot_anew(self: OsDisk, path: Path) -> str:
    """In place of `OsDisk.mount`: this machine did not really boot, and a store rightly asks whether it did."""
    return f"after the power cut/{path.stat().st_dev:x}"


def _child(
    sender: Connection, directories: list[Path], bucket: str, keys: list[str], bug: str, spare: Path | None
) -> None:
    OsDisk.mount = _boot_anew  # type: ignore[method-assign]
    if bug:
        BUGS[bug].plant()
    # Not what was recorded: a power cut empties tmpfs.
    run = in_memory("cut")
    try:
        sender.send(asyncio.run(_read(directories, run, bucket, keys, spare)))
    except (HoldfastError, OSError) as error:
        sender.send(f"cannot be opened: {error!r}")
    finally:
        shutil.rmtree(run, ignore_errors=True)


async def _read(directories: list[Path], run: Path, bucket: str, keys: list[str], spare: Path | None) -> Contents:
    settings = load(tuple(directories), {}, {"HOLDFAST_RUN_DIR": str(run)}, None)
    await asyncio.to_thread(find_or_make, settings, OsDisk(), SystemRandomness(), SystemClock())
    listed: dict[str, str] = {}
    faults: list[str] = []
    async with open_store(settings) as opened:
        store = opened.store
        try:
            listed = {found.key: found.etag for found in (await store.list_objects(bucket)).objects}
        except NoSuchBucket:
            return Contents({}, {}, ())
        etags = await _read_all(store, bucket, sorted({*keys, *listed}), faults)
        await collect(opened)
        if await _read_all(store, bucket, sorted({*keys, *listed}), faults) != etags:
            faults.append("collection changed what can be read")
        for size in (100, 300_000):
            await store.put_object(bucket, "afterwards", bytes(size), PutOptions())
            if (await store.object_info(bucket, "afterwards")).size != size:
                faults.append("it takes no more writes")
        if spare is not None:
            faults += await _mend(opened, spare)
    return Contents(etags, listed, tuple(faults))


async def _read_all(store: Store, bucket: str, keys: Sequence[str], faults: list[str]) -> dict[str, str]:
    """The ETags of what opens; what is wrong is added to `faults`."""
    etags: dict[str, str] = {}
    for key in keys:
        try:
            reader = await store.open_object(bucket, key)
            async with contextlib.aclosing(reader.read()) as pieces:
                body = b"".join([bytes(piece) async for piece in pieces])
        except HoldfastError as error:
            if type(error).__name__ != "NoSuchObject":
                faults.append(f"{key}: {error!r}")
            continue
        etags[key] = reader.info.etag
        if (fault := body_fault(body)) is not None:
            faults.append(f"{key}: {fault}")
    return etags


async def _mend(opened: OpenStore, spare: Path) -> list[str]:
    """Replace what is missing, and repair; what is wrong then."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        await replace_missing(opened, spare)
        is_whole = await repair(opened, Output(as_json=False))
        is_sound = await check(opened, Output(as_json=False), read=True, mending=False)
    return [] if is_whole and is_sound else [f"not mended: {said.getvalue()}"]
