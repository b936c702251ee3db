"""`rm`: one object, its versions, or a folder of them; asked about first when it is many."""

import sys
from collections.abc import Iterator
from datetime import UTC, datetime

import click

from holdfast.cli.client import listing
from holdfast.cli.client.address import Remote
from holdfast.cli.client.connection import Connection
from holdfast.cli.client.crew import Crew
from holdfast.cli.client.listing import Entry
from holdfast.cli.client.matching import Filter
from holdfast.cli.client.nearest import missing
from holdfast.cli.client.removing import Remover
from holdfast.cli.client.reporting import Reporter, shown
from holdfast.cli.output import count
from holdfast.core.errors import InvalidRequest, NotFound

_NEVER = datetime.fromtimestamp(0, UTC)


def delete(
    connection: Connection,
    crew: Crew,
    reporter: Reporter,
    remote: Remote,
    *,
    recursive: bool,
    versions: bool,
    version_id: str,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    dry_run: bool,
    yes: bool,
) -> None:
    """Delete what is named. Raises NotFound when there is nothing, InvalidRequest when it would have to ask."""
    if not recursive and (remote.is_folder or not remote.key):
        raise InvalidRequest(f"{remote} names no object: --recursive deletes everything in it")
    wanted = Filter.of(include, exclude)
    if not recursive:
        entries = _one(connection, remote, version_id, versions=versions)
    else:
        everything = listing.versions if versions else listing.objects
        entries = (
            entry
            for entry in everything(connection, remote.bucket, remote.prefix)
            if wanted.takes(entry.key[len(remote.prefix) :])
        )
    if dry_run:
        for entry in entries:
            name = str(Remote(remote.bucket, entry.key))
            reporter.result(f"Would delete {shown(name)}", status="would delete", name=name)
        return
    if recursive and not yes:
        ask(f"Delete everything in {shown(str(remote))}{', with all versions' if versions else ''}?")
    removed = Remover(connection, crew, reporter, remote.bucket).remove(
        entries, with_versions=versions or bool(version_id)
    )
    if recursive and not removed and not reporter.failures:
        raise NotFound(f"there is nothing in {remote}: `holdfast ls` shows what there is")
    if recursive:
        noun = "version" if versions else "object"
        reporter.summary(f"{count(removed, noun)} deleted", deleted=removed, failed=reporter.failures)


def _one(connection: Connection, remote: Remote, version_id: str, *, versions: bool) -> Iterator[Entry]:
    """The object, which must be there: in a bucket with versions deleting a misspelled name would leave a marker."""
    if versions:
        found = False
        for entry in listing.versions(connection, remote.bucket, remote.key):
            if entry.key == remote.key:
                found = True
                yield entry
        if not found:
            raise NotFound(f"{remote}: there is no version of such an object")
        return
    if not version_id:  # a delete marker has an id, and no HEAD
        try:
            listing.named(connection, remote)
        except NotFound as error:
            raise missing(connection, remote, error) from error
    yield Entry(remote.key, 0, _NEVER, "", version_id)


def ask(question: str) -> None:
    """Raises InvalidRequest where nobody can be asked, click.Abort when the answer is no."""
    if not sys.stdin.isatty():
        raise InvalidRequest(f"{question} There is no terminal to ask on: say --yes")
    click.confirm(question, abort=True, err=True)
