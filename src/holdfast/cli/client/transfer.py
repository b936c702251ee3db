"""Many objects to and fro: each job is a source and a target, and the crew does them.

A job that fails is told and the others go on; the command's exit status says that not all is well. With `moves`, the
source is deleted when its copy is whole, and only if it is still what was copied.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holdfast.cli.client.address import Remote
from holdfast.cli.client.connection import Connection
from holdfast.cli.client.copy import Copied, Copier
from holdfast.cli.client.crew import Crew
from holdfast.cli.client.download import Downloaded, Downloader
from holdfast.cli.client.landing import InTheWay, Landing, local_error
from holdfast.cli.client.reporting import Meter, Reporter, in_words, shown
from holdfast.cli.client.upload import Uploaded, Uploader
from holdfast.cli.output import count
from holdfast.core.clock import Clock
from holdfast.core.errors import HoldfastError, InvalidRequest, PreconditionFailed


@dataclass(frozen=True, slots=True)
class Landed:
    """A file below a directory that must not be left."""

    landing: Landing
    relative: str

    def __str__(self) -> str:
        return str(self.landing.root / self.relative)


@dataclass(frozen=True, slots=True)
class Job:
    """One object to bring from one place to another."""

    source: Remote | Path
    target: Remote | Path | Landed
    size: int
    etag: str = ""
    """Of a remote source."""
    version_id: str = ""


@dataclass(slots=True)
class Tally:
    """What came of the jobs so far."""

    items: int = 0
    bytes: int = 0
    resumed_bytes: int = 0
    last: str = ""
    """The one that was done last, in words."""
    postponed: list[tuple[Job, HoldfastError]] = field(default_factory=list)
    """Those that found something in their way, which a deletion may take away."""


@dataclass(frozen=True, slots=True)
class Transfers:
    """Brings objects where they belong. `notes` is the directory of unfinished uploads."""

    connection: Connection
    crew: Crew
    reporter: Reporter
    clock: Clock
    notes: Path
    headers: dict[str, Any] = field(default_factory=dict)
    moves: bool = False
    may_replace: bool = True

    def run(self, jobs: Iterable[Job], what: str, *, postpone: bool = False) -> Tally:
        """Do all jobs, telling of each. With `postpone`, what was in the way is not told but kept in the tally."""
        tally = Tally()
        with self.reporter.meter(what) as meter:
            for job, result in self.crew.each(_counted(jobs, meter), self._worker(meter)):
                if isinstance(result, InTheWay) and postpone:
                    tally.postponed.append((job, result))
                elif isinstance(result, HoldfastError):
                    self.reporter.fail(result, str(job.source))
                else:
                    self._tell(job, result, tally)
                    meter.finish_item()
        return tally

    def tell(self, tally: Tally, seconds: float, **more: Any) -> None:
        """The last line. `more` is counted by the caller: `same` and `deleted` of a mirror."""
        resumed, failures = tally.resumed_bytes, self.reporter.failures
        said = [f"{count(tally.items, 'object')}, {in_words(tally.bytes - resumed, seconds)}"]
        if tally.items == 1 and self.reporter.shows_progress:
            said = [f"{tally.last}, {in_words(tally.bytes - resumed, seconds)}"]
        elif not tally.items and not failures:
            said = ["Nothing to copy"]
        if resumed:
            said.append(f"{in_words(resumed, 0)} were there from an earlier run")
        if more.get("same"):
            said.append(f"{more['same']:,} were the same")
        if more.get("deleted"):
            said.append(f"{more['deleted']:,} deleted")
        if failures:
            said.append(f"{failures:,} failed")
        self.reporter.summary(
            "; ".join(said), objects=tally.items, bytes=tally.bytes, resumed_bytes=resumed, failed=failures,
            seconds=round(seconds, 3), **more,
        )  # fmt: skip

    def _tell(self, job: Job, result: Uploaded | Downloaded | Copied, tally: Tally) -> None:
        resumed = 0 if isinstance(result, Copied) else result.resumed_bytes
        tally.items += 1
        tally.bytes += result.size
        tally.resumed_bytes += resumed
        tally.last = f"{shown(str(job.source))} -> {shown(str(job.target))}"
        self.reporter.done(
            tally.last,
            status="done", source=str(job.source), target=str(job.target), bytes=result.size, etag=result.etag,
            resumed_bytes=resumed,
        )  # fmt: skip

    def _worker(self, meter: Meter) -> Callable[[Job], Uploaded | Downloaded | Copied]:
        uploader = Uploader(self.connection, self.crew, self.notes, meter.advance, self._upload_headers())
        downloader = Downloader(self.connection, self.crew, meter.advance)
        copier = Copier(self.connection, self.crew, meter.advance)

        def work(job: Job) -> Uploaded | Downloaded | Copied:
            result = self._carry_out(job, uploader, downloader, copier)
            if self.moves:
                self._remove_source(job)
            return result

        return work

    def _upload_headers(self) -> dict[str, Any]:
        return self.headers if self.may_replace else {**self.headers, "IfNoneMatch": "*"}

    def _carry_out(
        self, job: Job, uploader: Uploader, downloader: Downloader, copier: Copier
    ) -> Uploaded | Downloaded | Copied:
        if isinstance(job.source, Path):
            assert isinstance(job.target, Remote)
            return uploader.put_file(job.source, job.target)
        if isinstance(job.target, Remote):
            return copier.copy(job.source, job.target, size=job.size, etag=job.etag)
        target = job.target
        path = target if isinstance(target, Path) else target.landing.place(target.relative)
        if not self.may_replace and path.exists():
            raise PreconditionFailed(f"{path} is there already, and --no-clobber leaves it")
        return downloader.get_file(job.source, path, size=job.size, version_id=job.version_id)

    def _remove_source(self, job: Job) -> None:
        if isinstance(job.source, Path):
            try:
                status = job.source.stat()
                if status.st_size == job.size:
                    job.source.unlink()
                    return
            except OSError as error:
                raise local_error(error, job.source) from error
            raise PreconditionFailed(f"{job.source} was changed meanwhile: its copy is stored, and it is left")
        remote = job.source
        try:
            self.connection.call("delete_object", remote.bucket, remote.key, IfMatch=f'"{job.etag}"')
        except InvalidRequest:
            # A server that has no conditional deletes.
            self.connection.call("delete_object", remote.bucket, remote.key)


def _counted(jobs: Iterable[Job], meter: Meter) -> Iterator[Job]:
    for job in jobs:
        meter.expect(job.size)
        yield job
    meter.is_all_known = True
