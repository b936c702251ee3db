"""`mirror`: make one side like the other, in either direction or between buckets, and say what was done.

Rules.

- Nothing is deleted without --delete; nothing before everything else is done; nothing when something failed, since
  then the source may not have been seen whole. What --include and --exclude leave out is left alone on both sides.
- An empty source with --delete is a disk that is not mounted more often than it is meant: it needs --yes.
- On this machine only files are deleted, and directories that this emptied; links are never followed out.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from holdfast.cli.client import listing
from holdfast.cli.client.address import Local, Remote
from holdfast.cli.client.comparing import Action, Comparison, Item, Step, compare
from holdfast.cli.client.copying import landed
from holdfast.cli.client.digests import Expected, is_plain_md5
from holdfast.cli.client.landing import Landing, local_error
from holdfast.cli.client.listing import Entry
from holdfast.cli.client.matching import Filter
from holdfast.cli.client.removing import Remover
from holdfast.cli.client.reporting import shown
from holdfast.cli.client.transfer import Job, Tally, Transfers
from holdfast.cli.client.upload import part_bytes_for
from holdfast.cli.client.walking import walk
from holdfast.core.errors import InvalidRequest
from holdfast.core.limits import MIB

Side = Local | Remote


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the command line says of a mirror."""

    filter: Filter
    delete: bool = False
    dry_run: bool = False
    by_content: bool = False
    follow: bool = False
    yes: bool = False


@dataclass(slots=True)
class _Seen:
    """What the comparison came upon."""

    source_items: int = 0
    same: int = 0
    extra: list[Item] = field(default_factory=list)


class Mirror:
    """One mirror, from `source` to `target`."""

    def __init__(self, transfers: Transfers, wishes: Wishes, source: Side, target: Side) -> None:
        if isinstance(source, Local) and isinstance(target, Local):
            raise InvalidRequest(f"{source} and {target} are both on this machine: one must be s3://BUCKET[/FOLDER]")
        if isinstance(source, Remote) and isinstance(target, Remote) and source.bucket == target.bucket:
            one, other = sorted((source.prefix, target.prefix), key=len)
            if other.startswith(one):
                raise InvalidRequest(f"{source} and {target} lie inside of each other: a mirror would never end")
        self._transfers = transfers
        self._wishes = wishes
        self._source = source
        self._target = target
        self._landing = Landing(target.path) if isinstance(target, Local) else None
        self._seen = _Seen()

    def run(self) -> None:
        """Raises what ends it as a whole; of single objects the reporter is told."""
        began = self._transfers.clock.monotonic()
        reporter = self._transfers.reporter
        tally = self._transfers.run(self._jobs(), "Mirroring", postpone=self._wishes.delete)
        deleted = self._delete_extra(bool(reporter.failures))
        if reporter.failures or not tally.postponed:
            for job, error in tally.postponed:
                reporter.fail(error, str(job.source))
        else:
            again = self._transfers.run((job for job, _ in tally.postponed), "Mirroring")
            tally = Tally(tally.items + again.items, tally.bytes + again.bytes, tally.resumed_bytes, again.last)
        if self._wishes.dry_run:
            return
        seconds = self._transfers.clock.monotonic() - began
        self._transfers.tell(tally, seconds, same=self._seen.same, deleted=deleted)

    def _jobs(self) -> Iterator[Job]:
        for action in self._actions():
            job = self._job(action.item)
            if job is None:
                continue
            if not self._wishes.dry_run:
                yield job
                continue
            self._transfers.reporter.result(
                f"Would copy {shown(str(job.source))} -> {shown(str(job.target))} ({action.step.value})",
                status="would copy", source=str(job.source), target=str(job.target), bytes=job.size,
                why=action.step.value,
            )  # fmt: skip

    def _actions(self) -> Iterator[Action]:
        """What is new or changed; the rest is counted."""
        source, target = self._items(self._source), self._items(self._target, may_be_absent=True)
        for action in compare(source, target, self._is_same):
            if action.step is Step.EXTRA:
                if self._wishes.delete:
                    self._seen.extra.append(action.item)
                continue
            self._seen.source_items += 1
            if action.step is Step.SAME:
                self._seen.same += 1
            else:
                yield action

    def _is_same(self, source: Item, target: Item) -> bool:
        # Made anew for each: the skew is known from the first answer on.
        comparison = Comparison(_md5_agrees, self._transfers.connection.skew, self._wishes.by_content)
        return comparison.is_same(source, target)

    def _items(self, side: Side, *, may_be_absent: bool = False) -> Iterator[Item]:
        takes = self._wishes.filter.takes
        if isinstance(side, Remote):
            for entry in listing.inside(self._transfers.connection, side):
                relative = entry.key[len(side.prefix) :]
                if relative and takes(relative) and not self._is_marker(relative, entry):
                    yield Item(relative, entry.size, entry.modified, entry.etag)
            return
        if may_be_absent and not side.path.exists():
            return
        reporter = self._transfers.reporter
        is_source = side is self._source
        files = walk(
            side.path,
            follow=self._wishes.follow and is_source,
            left_out=(lambda text: reporter.note(f"Left out {shown(text)}")) if is_source else (lambda _: None),
            failed=reporter.fail,
        )
        for file in files:
            if takes(file.relative):
                modified = datetime.fromtimestamp(file.modified_ns // 10**9, tz=UTC)
                yield Item(file.relative, file.size, modified, path=file.path)

    def _is_marker(self, relative: str, entry: Entry) -> bool:
        """A folder as consoles make it, which a directory is without."""
        between_buckets = isinstance(self._source, Remote) and isinstance(self._target, Remote)
        return relative.endswith("/") and entry.size == 0 and not between_buckets

    def _job(self, item: Item) -> Job | None:
        if item.path is not None:
            assert isinstance(self._target, Remote)
            return Job(item.path, self._target.at(item.relative), item.size)
        assert isinstance(self._source, Remote)
        remote = self._source.at(item.relative)
        if isinstance(self._target, Remote):
            return Job(remote, self._target.at(item.relative), item.size, item.etag)
        assert self._landing is not None
        entry = Entry(remote.key, item.size, item.modified, item.etag)
        return landed(remote, entry, item.relative, self._landing, self._transfers.reporter.fail)

    def _delete_extra(self, something_failed: bool) -> int:
        extra = self._seen.extra
        reporter = self._transfers.reporter
        if not extra:
            return 0
        if not self._seen.source_items and not self._wishes.yes and not self._wishes.dry_run:
            raise InvalidRequest(
                f"{self._source} is empty, so everything in {self._target} ({len(extra):,}) would be deleted: "
                "if that is meant, say --yes"
            )
        if self._wishes.dry_run:
            for item in extra:
                name = self._name(item)
                reporter.result(f"Would delete {shown(name)}", status="would delete", name=name)
            return 0
        if something_failed:
            reporter.note(f"Nothing was deleted, since something failed: {len(extra):,} are in the target only")
            return 0
        if isinstance(self._target, Remote):
            remover = Remover(self._transfers.connection, self._transfers.crew, reporter, self._target.bucket)
            prefix = self._target.prefix
            return remover.remove(Entry(prefix + item.relative, item.size, item.modified, item.etag) for item in extra)
        return sum(self._delete_file(item) for item in extra)

    def _name(self, item: Item) -> str:
        return str(item.path) if item.path is not None else str(_remote(self._target).at(item.relative))

    def _delete_file(self, item: Item) -> bool:
        assert item.path is not None
        assert isinstance(self._target, Local)
        try:
            item.path.unlink()
        except OSError as error:
            self._transfers.reporter.fail(local_error(error, item.path), str(item.path))
            return False
        name = str(item.path)
        self._transfers.reporter.done(f"Deleted {shown(name)}", status="deleted", name=name)
        directory = item.path.parent
        while directory != self._target.path:
            try:
                directory.rmdir()
            except OSError:
                break
            directory = directory.parent
        return True


def _remote(side: Side) -> Remote:
    assert isinstance(side, Remote)
    return side


def _md5_agrees(item: Item, etag: str) -> bool:
    """Whether the file has this ETag: an MD5, or one of parts as `put` makes them."""
    assert item.path is not None
    if is_plain_md5(etag):
        expected = Expected("ETag", etag)
    elif etag.endswith(f"-{-(-item.size // part_bytes_for(item.size))}"):
        expected = Expected("parts", etag, part_bytes_for(item.size))
    else:
        return False
    found = expected.start()
    try:
        with item.path.open("rb") as file:
            while data := file.read(MIB):
                found.update(data)
    except OSError:
        return False
    return found.text() == etag
