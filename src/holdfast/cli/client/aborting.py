"""`uploads abort`: which unfinished uploads are meant, and their end."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from holdfast.cli.client import listing
from holdfast.cli.client.address import Remote
from holdfast.cli.client.connection import Connection
from holdfast.cli.client.crew import Crew
from holdfast.cli.client.deleting import ask
from holdfast.cli.client.listing import Begun
from holdfast.cli.client.reporting import Reporter, shown
from holdfast.cli.client.unfinished import Known
from holdfast.cli.output import count
from holdfast.core.errors import HoldfastError, InvalidRequest, NotFound


@dataclass(frozen=True, slots=True)
class Meant:
    """What the command line says of them. A folder, as of objects: s3://b/a never takes in "ab"."""

    remote: Remote
    recursive: bool
    upload_id: str
    """"" means any."""
    age: timedelta

    def __post_init__(self) -> None:
        if not self.recursive and not self.remote.key:
            raise InvalidRequest(f"{self.remote} names no object: --recursive aborts everything in it")
        if self.recursive and self.upload_id:
            raise InvalidRequest("--upload-id names one upload of one object, and --recursive all of many")

    def takes(self, begun: Begun) -> bool:
        """By name alone."""
        return self.recursive or (begun.key == self.remote.key and self.upload_id in ("", begun.upload_id))


@dataclass(frozen=True, slots=True)
class Aborter:
    """Ends uploads. `notes` are those of this machine, by upload id."""

    connection: Connection
    reporter: Reporter
    notes: dict[str, Known]

    def abort(self, meant: Meant, crew: Crew, *, yes: bool) -> None:
        """Raises NotFound when there is none of one object, InvalidRequest when it would have to ask."""
        remote, reporter = meant.remote, self.reporter
        if meant.recursive and not yes:
            ask(f"Abort every unfinished upload in {shown(str(remote))}?")
        aborted = 0
        for begun, result in crew.each(self._chosen(meant), lambda begun: self._end(remote.bucket, begun)):
            name = str(Remote(remote.bucket, begun.key))
            # One that ended meanwhile is as good as aborted.
            if isinstance(result, HoldfastError) and not isinstance(result, NotFound):
                reporter.fail(result, name)
                continue
            aborted += 1
            reporter.done(f"Aborted {shown(name)}", status="aborted", name=name, upload_id=begun.upload_id)
        if not aborted and not meant.recursive and not reporter.failures:
            raise NotFound(f"{remote}: there is no such unfinished upload: `holdfast uploads list` shows what there is")
        reporter.summary(f"{count(aborted, 'upload')} aborted", aborted=aborted, failed=reporter.failures)

    def tell(self, meant: Meant) -> None:
        """What `abort` would do."""
        for begun in self._chosen(meant):
            name = str(Remote(meant.remote.bucket, begun.key))
            self.reporter.result(
                f"Would abort {shown(name)}, begun {begun.started:%Y-%m-%d %H:%M} UTC",
                status="would abort", name=name, upload_id=begun.upload_id,
            )  # fmt: skip

    def _chosen(self, meant: Meant) -> Iterator[Begun]:
        prefix = meant.remote.prefix if meant.recursive else meant.remote.key
        for begun in listing.uploads(self.connection, meant.remote.bucket, prefix):
            # By the server's clock, which is known from its first answer on.
            is_old = begun.started <= self.connection.now() + self.connection.skew - meant.age
            if not meant.takes(begun) or (meant.age and not is_old):
                continue
            note = self.notes.get(begun.upload_id)
            if note is not None and note.is_locked:
                self.reporter.note(f"Left out {shown(note.begun.source)}, which is being sent now")
                continue
            yield begun

    def _end(self, bucket: str, begun: Begun) -> None:
        self.connection.call("abort_multipart_upload", bucket, begun.key, UploadId=begun.upload_id)
        note = self.notes.get(begun.upload_id)
        if note is not None:
            note.path.unlink(missing_ok=True)
