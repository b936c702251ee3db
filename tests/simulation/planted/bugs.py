"""The planted bugs: each is a mistake that somebody could make, made at one seam, and the proof that must find it."""

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec.structs import replace


@dataclass(frozen=True, slots=True)
class Bug:
    plant: Callable[[], None]
    proof: str
    """syncs, power cut, upkeep (a power cut during it), history, rot, or stale drive."""
    cuts: int | None = 24
    """How many a power cut takes to find it; None is every sync boundary, in one style after the other."""


def _skip_sync(part: str) -> None:
    """fdatasync is left out for files with `part` in their path."""
    from holdfast.drives.os_disk import OsFile

    sync = OsFile.sync

    def lazy(self: OsFile) -> None:
        path = Path(f"/proc/self/fd/{self._descriptor}").readlink()
        if part not in str(path):
            sync(self)

    OsFile.sync = lazy  # type: ignore[method-assign]


def log_not_synced() -> None:
    _skip_sync("/meta/log")


def segments_not_synced() -> None:
    _skip_sync("/segments/")


def one_mirror_synced() -> None:
    """The metadata log is synced on its first mirror, and only written on the others."""
    _skip_sync("/meta/log")
    from holdfast.meta.local.mirrors import MirrorSet

    append = MirrorSet.append

    def first_only(self: Any, *arguments: Any) -> Any:
        answer = append(self, *arguments)
        os.fdatasync(self.mirrors[0]._file._file._descriptor)
        return answer

    MirrorSet.append = first_only  # type: ignore[method-assign,assignment]


def directories_not_synced() -> None:
    from holdfast.drives.os_disk import OsDisk

    OsDisk.sync_directory = lambda self, path: None  # type: ignore[method-assign]


def small_files_not_synced() -> None:
    """A small file is replaced by a rename, without a sync of what it holds."""
    from holdfast.drives.os_disk import OsDisk

    def replace_file(self: OsDisk, path: Path, data: Any, *, mode: int = 0o600) -> None:
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        temporary.write_bytes(data)
        temporary.chmod(mode)
        temporary.rename(path)
        self.sync_directory(path.parent)

    OsDisk.replace_file = replace_file  # type: ignore[method-assign]


def quorum_of_one() -> None:
    """A block is acknowledged when one drive has its fragment.

    One drive is quicker than the others: those that are alike have all synced by the time that the metadata has.
    """
    from holdfast.cluster.write import Write
    from holdfast.drives.directory import DirectoryDrive

    run, put = Write.run, DirectoryDrive.put
    quickest: list[Any] = []

    async def hasty(self: Any) -> Any:
        self._quorum = 1
        return await run(self)

    async def impatient(self: Any) -> None:
        self._settle(None)

    async def uneven(self: Any, fragments: Any) -> None:
        quickest.extend([self] if not quickest else [])
        await asyncio.sleep(0.0 if self in quickest else 0.05)
        await put(self, fragments)

    Write.run = hasty  # type: ignore[method-assign]
    Write._grace = impatient  # type: ignore[method-assign]
    DirectoryDrive.put = uneven  # type: ignore[method-assign]


def answer_before_commit() -> None:
    """The commit is begun, and answered before it has ended."""
    from holdfast.meta.local.engine import LocalMeta

    commit = LocalMeta.commit
    under_way: set[asyncio.Task[None]] = set()

    async def begin(self: Any, changes: Any, expecting: Any = (), *, token: Any) -> None:
        task = asyncio.ensure_future(commit(self, changes, expecting, token=token))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
        await asyncio.sleep(0)

    LocalMeta.commit = begin  # type: ignore[method-assign]


def expectations_not_checked() -> None:
    """Every commit goes through, whatever it expected."""
    from holdfast.meta.local.view import View

    View.first_failure = lambda self, transaction, expecting: None  # type: ignore[method-assign]


def stale_mirror_trusted() -> None:
    """A start believes the first drive that says which mirrors are current, and does not count how many say so."""
    import holdfast.meta.local.hold as hold
    import holdfast.meta.local.witness as witness

    witness.Testimony.newest = property(lambda self: next(iter(self.witnesses.values())))  # type: ignore[assignment,method-assign]
    witness.check_quorum = lambda *arguments: None
    hold.check_quorum = witness.check_quorum  # type: ignore[attr-defined]


def _cache(name: str, seconds: float) -> None:
    """A method of the metadata engine answers from a memory of its own process."""
    from holdfast.meta.local.engine import LocalMeta

    method = getattr(LocalMeta, name)
    memory: dict[Any, tuple[float, Any]] = {}

    async def remembering(self: Any, *arguments: Any, **options: Any) -> Any:
        key = repr((arguments, sorted(options.items())))
        if key in memory and time.monotonic() - memory[key][0] < seconds:
            return memory[key][1]
        answer = await method(self, *arguments, **options)
        memory[key] = (time.monotonic(), answer)
        return answer

    setattr(LocalMeta, name, remembering)


def rows_cached() -> None:
    _cache("get_many", 0.02)


def listings_cached() -> None:
    _cache("scan", 0.05)


def conditions_seen_too_early() -> None:
    """If-Match is decided on what was read, and the commit does not expect it to be so still."""
    from holdfast.objects.publish import Publisher

    commit = Publisher._commit

    async def careless(self: Any, bucket: Any, expecting: Sequence[Any], steps: Any, extra: Any) -> bool:
        return await commit(self, bucket, [], steps, extra)

    Publisher._commit = careless  # type: ignore[method-assign]


def deletes_forgotten() -> None:
    """One delete in five is answered and not done."""
    from holdfast.objects.publish import Publisher

    commit = Publisher._commit
    count = 0

    async def forgetful(self: Any, bucket: Any, expecting: Any, steps: Any, extra: Any) -> bool:
        nonlocal count
        count += 1
        if not extra.changes and all(not hasattr(step, "row") for step in steps) and count % 5 == 0:
            return True
        return await commit(self, bucket, expecting, steps, extra)

    Publisher._commit = forgetful  # type: ignore[method-assign]


def leaves_not_checked() -> None:
    """Fragments are taken as they come from the drives: neither record nor leaf is checked."""
    import holdfast.drives.reader as reader
    from holdfast.erasure.commitment import Commitment

    reader.check_payload = lambda *arguments: None  # type: ignore[attr-defined]
    Commitment.check = lambda self, *arguments: None  # type: ignore[method-assign]


def index_trusted_after_a_reboot() -> None:
    """Unsynced indexes and views are taken as good although the machine was down."""
    from holdfast.drives.os_disk import OsDisk

    OsDisk.mount = lambda self, path: "always the same"  # type: ignore[method-assign]


def last_record_forgotten() -> None:
    """What the log has beyond the view is not read at a start."""
    from holdfast.meta.local.mirrors import MirrorSet

    MirrorSet.roll_forward = lambda self, position: iter(())  # type: ignore[method-assign]


def conditions_ignored() -> None:
    """If-Match and If-None-Match are read, and nothing follows from them."""
    import holdfast.objects.publish as publish

    publish.check_conditions = lambda *arguments: None  # type: ignore[attr-defined]


def listings_cut_short() -> None:
    """The last entry of a scan with more than one is dropped."""
    from holdfast.meta.local.view import View

    scan = View.scan

    def short(self: Any, *arguments: Any) -> Any:
        page = scan(self, *arguments)
        return replace(page, entries=page.entries[:-1]) if len(page.entries) > 1 and page.resume is None else page

    View.scan = short  # type: ignore[method-assign,assignment]


def torn_records_taken() -> None:
    """A record of the log counts by its header alone: whether all of it was written is not looked at."""
    import holdfast.meta.local.log as log
    import holdfast.meta.local.mirror as mirror

    def trusting(raw: Any, after: Any) -> Any:
        length = log.payload_bytes(raw, after)
        if length is None or len(raw) < log.HEADER_BYTES + length:
            return None
        _, _, epoch, sequence, _, own = log._HEADER.unpack_from(raw)
        payload = bytes(raw[log.HEADER_BYTES : log.HEADER_BYTES + length])
        return log.Record(epoch, sequence, own, payload, log.record_bytes(length))

    mirror.decode_record = trusting  # type: ignore[attr-defined]


def compaction_drops_what_lives() -> None:
    from holdfast.drives.compaction import Compactor
    from holdfast.drives.rows import Update

    Compactor._living = lambda self, entries: []  # type: ignore[method-assign]
    Update.lives = lambda self, entry: False  # type: ignore[method-assign]


def metadata_before_data() -> None:
    """Blocks are sent to their drives, and the object is published without waiting for them."""
    from holdfast.objects.contents import ContentBlocks

    put = ContentBlocks.put
    under_way: set[asyncio.Task[None]] = set()

    async def send(self: Any, block: Any, position: int) -> None:
        self.layout_versions.add(1)
        # The caller's buffers are used again once this returns.
        copied = replace(block, payloads=tuple(bytes(payload) for payload in block.payloads))
        task = asyncio.ensure_future(put(self, copied, position))
        under_way.add(task)
        task.add_done_callback(under_way.discard)

    ContentBlocks.put = send  # type: ignore[method-assign]


def reference_dropped_early() -> None:
    """What an overwrite or a deletion releases is released in a commit of its own, before the one that publishes."""
    from holdfast.core.errors import PreconditionFailed, Unavailable
    from holdfast.core.ids import new_token
    from holdfast.objects.publish import Publisher

    commit = Publisher._commit

    async def early(self: Any, bucket: Any, expecting: Any, steps: Any, extra: Any) -> bool:
        released = [content for step in steps for content in step.released]
        if released:
            try:
                dropped = await self._references.move((), released)
                await self._meta.commit(dropped.changes, dropped.expecting, token=new_token(self._randomness))
            except (PreconditionFailed, Unavailable):
                return False
            for step in steps:
                step.released.clear()
        return await commit(self, bucket, expecting, steps, extra)

    Publisher._commit = early  # type: ignore[method-assign]


BUGS = {
    "log-not-synced": Bug(log_not_synced, "syncs"),
    "segments-not-synced": Bug(segments_not_synced, "power cut"),
    "one-mirror-synced": Bug(one_mirror_synced, "syncs"),
    "quorum-of-one": Bug(quorum_of_one, "syncs"),
    "directories-not-synced": Bug(directories_not_synced, "power cut"),
    "small-files-not-synced": Bug(small_files_not_synced, "power cut"),
    "index-trusted-after-a-reboot": Bug(index_trusted_after_a_reboot, "power cut"),
    "last-record-forgotten": Bug(last_record_forgotten, "power cut"),
    "answer-before-commit": Bug(answer_before_commit, "history"),
    "expectations-not-checked": Bug(expectations_not_checked, "history"),
    "conditions-seen-too-early": Bug(conditions_seen_too_early, "history"),
    "rows-cached": Bug(rows_cached, "history"),
    "listings-cached": Bug(listings_cached, "history"),
    "deletes-forgotten": Bug(deletes_forgotten, "history"),
    "conditions-ignored": Bug(conditions_ignored, "history"),
    "listings-cut-short": Bug(listings_cut_short, "history"),
    "torn-records-taken": Bug(torn_records_taken, "power cut", cuts=None),
    "compaction-drops-what-lives": Bug(compaction_drops_what_lives, "upkeep", cuts=40),
    "metadata-before-data": Bug(metadata_before_data, "power cut"),
    "reference-dropped-early": Bug(reference_dropped_early, "upkeep", cuts=None),
    "leaves-not-checked": Bug(leaves_not_checked, "rot"),
    "stale-mirror-trusted": Bug(stale_mirror_trusted, "stale drive"),
}
