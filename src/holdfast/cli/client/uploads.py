"""`holdfast uploads`: uploads in parts that were begun and neither completed nor aborted.

What has arrived of them takes up room and is in no listing of objects. A `put`, `cp` or `mirror` that was interrupted
leaves one, which the same command goes on with: its note on this machine (`unfinished`) tells it from the others, and
whether a command is sending it right now.
"""

from datetime import timedelta
from itertools import islice

import click

from holdfast.cli.client.address import Remote, parse_remote
from holdfast.cli.client.completing import REMOTE
from holdfast.cli.client.options import DRY_RUN, EXACT, RECURSIVE, YES
from holdfast.cli.client.session import Session, connected
from holdfast.core.errors import HoldfastError, NotFound

# Sizes are asked for so many uploads at a time, to be shown in the order of keys.
_BATCH_COUNT = 100


@click.group()
def uploads() -> None:
    """List and abort uploads in parts that were never completed."""


@uploads.command("list")
@click.argument("remote", metavar="s3://BUCKET[/PREFIX]", type=REMOTE)
@EXACT
@connected()
def list_(session: Session, remote: str, exact: bool) -> None:
    """List unfinished uploads of keys that begin with PREFIX.

    Says since when, and how much of each has arrived. Those that a command on this machine left, and would go on with,
    are named with their file.

    \b
    Example:
      holdfast uploads list s3://films
    """
    from holdfast.cli.client import listing
    from holdfast.cli.client.showing import Units, show_upload
    from holdfast.cli.client.unfinished import known

    place, connection, notes = parse_remote(remote), session.connect(), known(session.notes)
    found = listing.uploads(connection, place.bucket, place.key)
    with session.crew() as crew:
        while batch := list(islice(found, _BATCH_COUNT)):
            asked = crew.each(batch, lambda begun: listing.part_bytes(connection, place.bucket, begun))
            sizes = {begun.upload_id: size for begun, size in asked}
            for begun in batch:
                arrived = sizes[begun.upload_id]
                if isinstance(arrived, NotFound):
                    continue  # it ended meanwhile
                if isinstance(arrived, HoldfastError):
                    session.reporter.fail(arrived, str(Remote(place.bucket, begun.key)))
                    continue
                show_upload(session.reporter, place.bucket, begun, arrived, notes.get(begun.upload_id), Units(exact))


@uploads.command()
@click.argument("remotes", nargs=-1, required=True, metavar="s3://BUCKET/KEY...", type=REMOTE)
@RECURSIVE
@click.option("--older-than", default="0s", metavar="TIME", help="Only those begun so long ago, as 12h or 7d.")
@click.option("--upload-id", default="", metavar="ID", help="That upload alone.")
@DRY_RUN
@YES
@connected(quiet=True, goes_on=True)
def abort(
    session: Session,
    remotes: tuple[str, ...],
    recursive: bool,
    older_than: str,
    upload_id: str,
    dry_run: bool,
    yes: bool,
) -> None:
    """Abort unfinished uploads of an object, or with --recursive more.

    With --recursive, all in a folder or bucket. What has arrived of them is deleted. One that a command on this machine
    is sending right now is left alone; of other machines nobody can tell, so --older-than is the safe way. A recursive
    abort asks first, or wants --yes.

    \b
    Examples:
      holdfast uploads abort s3://films/storm.mkv
      holdfast uploads abort --recursive --older-than 7d s3://films
    """
    from holdfast.cli.client.aborting import Aborter, Meant
    from holdfast.cli.client.unfinished import known
    from holdfast.cli.settings import parse_duration

    age = timedelta(seconds=parse_duration(older_than))
    meant = [Meant(parse_remote(text), recursive, upload_id, age) for text in remotes]
    aborter = Aborter(session.connect(), session.reporter, known(session.notes))
    with session.crew() as crew:
        for one in meant:
            if dry_run:
                aborter.tell(one)
            else:
                aborter.abort(one, crew, yes=yes)
