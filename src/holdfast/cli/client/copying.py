"""`cp`, `mv`, `put` and `get`: what their arguments mean.

A target that is a bucket, ends in a slash or is a directory takes the source's name; any other is the name. With
`recursive`, a folder's or directory's contents go below the target, without the folder's own name, as in aws-cli.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from holdfast.cli.client import listing
from holdfast.cli.client.address import Local, Place, Remote, Stream
from holdfast.cli.client.connection import Connection
from holdfast.cli.client.digests import etag_of
from holdfast.cli.client.landing import Landing, relative_parts
from holdfast.cli.client.listing import Entry
from holdfast.cli.client.matching import Filter
from holdfast.cli.client.nearest import missing
from holdfast.cli.client.transfer import Job, Landed
from holdfast.cli.client.walking import walk
from holdfast.core.errors import HoldfastError, InvalidName, InvalidRequest, NotFound


@dataclass(frozen=True, slots=True)
class Planner:
    """Turns arguments into jobs. `failed` is told of names that cannot be brought over, `left_out` of links."""

    connection: Connection
    filter: Filter
    failed: Callable[[HoldfastError], None]
    left_out: Callable[[str], None]
    recursive: bool = False
    follow: bool = False
    version_id: str = ""

    def jobs(self, sources: Sequence[Place], target: Place) -> Iterator[Job]:
        """Raises InvalidRequest before anything is done when the arguments do not fit together."""
        for source in sources:
            if isinstance(source, Stream) or isinstance(target, Stream):
                raise InvalidRequest("`-` is standard input as the only source, or standard output as the target")
            if isinstance(source, Local) and isinstance(target, Local):
                raise InvalidRequest(
                    f"{source} and {target} are both on this machine: what is remote is written s3://BUCKET/KEY"
                )
        if len(sources) > 1 and not _is_folder(target):
            raise InvalidRequest(f"{target} is one name, and there are {len(sources)} sources: end it in a slash")
        if len(sources) > 1 and self.recursive:
            raise InvalidRequest("--recursive takes one source: what is in it goes below the target")
        return self._each(sources, target)

    def _each(self, sources: Sequence[Place], target: Place) -> Iterator[Job]:
        for source in sources:
            if isinstance(source, Local):
                assert isinstance(target, Remote)
                yield from self._from_local(source.path, target)
            else:
                assert isinstance(source, Remote)
                yield from self._from_remote(source, target)

    def _from_local(self, source: Path, target: Remote) -> Iterator[Job]:
        if source.is_dir():
            if not self.recursive:
                raise InvalidRequest(f"{source} is a directory: --recursive takes what is in it")
            for file in walk(source, follow=self.follow, left_out=self.left_out, failed=self.failed):
                if self.filter.takes(file.relative):
                    yield Job(file.path, target.at(file.relative), file.size)
            return
        try:
            size = source.stat().st_size
        except OSError:
            size = 0  # opening it says what is wrong
        yield Job(source, target.at(source.name) if target.is_folder else target, size)

    def _from_remote(self, source: Remote, target: Place) -> Iterator[Job]:
        if not self.recursive:
            if source.is_folder:
                raise InvalidRequest(f"{source} names no object: --recursive takes everything in it")
            yield self._one(source, target)
            return
        found = False
        if isinstance(target, Remote) and source.bucket == target.bucket and target.prefix.startswith(source.prefix):
            raise InvalidRequest(f"{target} lies inside of {source}: it would be copied into itself")
        landing = Landing(target.path) if isinstance(target, Local) else None
        for entry in listing.inside(self.connection, source):
            found = True
            relative = entry.key[len(source.prefix) :]
            if not relative or not self.filter.takes(relative):
                continue
            if (job := self._inner(source, entry, relative, target, landing)) is not None:
                yield job
        if not found:
            if source.is_folder:
                raise NotFound(f"there is nothing in {source}: `holdfast ls` shows what there is")
            yield self._one(source, target)

    def _inner(self, source: Remote, entry: Entry, relative: str, target: Place, landing: Landing | None) -> Job | None:
        remote = Remote(source.bucket, entry.key)
        if isinstance(target, Remote):
            return Job(remote, target.at(relative), entry.size, entry.etag)
        assert landing is not None
        return landed(remote, entry, relative, landing, self.failed)

    def _one(self, source: Remote, target: Place) -> Job:
        try:
            head = listing.named(self.connection, source, self.version_id)
        except NotFound as error:
            raise missing(self.connection, source, error) from error
        size, etag = int(head["ContentLength"]), etag_of(head)
        if isinstance(target, Remote):
            place = target.at(source.name) if target.is_folder else target
            return Job(source, place, size, etag, self.version_id)
        assert isinstance(target, Local)
        if not _is_folder(target):
            return Job(source, target.path, size, etag, self.version_id)
        relative_parts(source.name)
        return Job(source, Landed(Landing(target.path), source.name), size, etag, self.version_id)


def landed(
    remote: Remote, entry: Entry, relative: str, landing: Landing, failed: Callable[[HoldfastError], None]
) -> Job | None:
    """The job that fetches it below a directory; None, and told, when no file can have that name.

    An empty object whose key ends in a slash is what consoles make of a folder: on a file system the directory is
    there by itself.
    """
    if relative.endswith("/") and entry.size == 0:
        return None
    try:
        relative_parts(relative)
    except InvalidName as error:
        failed(error)
        return None
    return Job(remote, Landed(landing, relative), entry.size, entry.etag)


def _is_folder(target: Place) -> bool:
    if isinstance(target, Remote):
        return target.is_folder
    return isinstance(target, Local) and (target.is_folder or target.path.is_dir())
