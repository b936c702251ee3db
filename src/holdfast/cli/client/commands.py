"""The commands of users: what they are called, what they take, what they say of themselves.

Each talks to any S3 endpoint, as AWS's own tools would find it. botocore is imported when a command runs, and only
then: `--help` and the operator's commands do without. Exit status: docs/commands.md.
"""

import sys
from typing import Any

import click

from holdfast.cli.client.address import Local, Place, Remote, Stream, parse_place, parse_remote
from holdfast.cli.client.completing import REMOTE
from holdfast.cli.client.options import (
    CONTENT_TYPE,
    DRY_RUN,
    EXACT,
    FOLLOW,
    METADATA,
    RECURSIVE,
    VERSION,
    YES,
    filtered,
    transferring,
)
from holdfast.cli.client.reporting import shown
from holdfast.cli.client.session import Session, connected
from holdfast.core.errors import InvalidRequest

# Its descriptor: bytes go there without Python's buffer.
STANDARD_OUTPUT = 1


def headers_of(content_type: str, metadata: tuple[str, ...]) -> dict[str, Any]:
    """Parameters of new objects. Raises InvalidRequest."""
    headers: dict[str, Any] = {"ContentType": content_type} if content_type else {}
    pairs = dict(_pair(text) for text in metadata)
    return {**headers, "Metadata": pairs} if pairs else headers


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise click.UsageError(f"--metadata {text!r} is not NAME=VALUE")
    return name, value


@click.command()
@click.argument("remote", required=False, default="", metavar="[s3://BUCKET[/PREFIX]]", type=REMOTE)
@RECURSIVE
@click.option("--versions", is_flag=True, help="Every version and delete marker too.")
@EXACT
@connected()
def ls(session: Session, remote: str, recursive: bool, versions: bool, exact: bool) -> None:
    """List buckets, or what begins with PREFIX.

    \b
    Examples:
      holdfast ls
      holdfast ls s3://photos/2026/
    """
    from holdfast.cli.client import showing

    if not remote:
        showing.list_buckets(session.connect(), session.reporter)
        return
    showing.list_objects(
        session.connect(), session.reporter, parse_remote(remote), showing.Units(exact),
        recursive=recursive, versions=versions,
    )  # fmt: skip


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="FILE...", type=click.Path(allow_dash=True))
@click.argument("target", metavar="s3://BUCKET[/KEY]", type=REMOTE)
@transferring(FOLLOW, CONTENT_TYPE, METADATA)
def put(session: Session, sources: tuple[str, ...], target: str, **options: Any) -> None:
    """Upload files, or with - standard input.

    A target that is a bucket or ends in a slash takes the files' names. Large files go in parts; interrupted, the
    same command goes on where it stopped.

    \b
    Examples:
      holdfast put report.pdf s3://papers/2026/
      tar c src | holdfast put - s3://backup/src.tar
    """
    places: list[Place] = [Stream() if text == "-" else Local(_path(text)) for text in sources]
    _transfer(session, places, parse_remote(target), "Uploading", options)


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="s3://BUCKET/KEY... [TARGET]", type=REMOTE)
@transferring(VERSION)
def get(session: Session, sources: tuple[str, ...], **options: Any) -> None:
    """Download objects.

    TARGET is a file, a directory, or - for standard output. Without it they go to the present directory. A file appears
    under its name when all of it is there and checked; interrupted, the same command goes on where it stopped.

    \b
    Examples:
      holdfast get s3://papers/2026/report.pdf
      holdfast get --recursive s3://papers/2026 papers/
    """
    *remotes, target = sources if len(sources) > 1 and not sources[-1].startswith("s3://") else (*sources, ".")
    _transfer(session, [parse_remote(text) for text in remotes], parse_place(target), "Downloading", options)


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...", type=REMOTE)
@click.argument("target", metavar="TARGET", type=REMOTE)
@transferring(FOLLOW, CONTENT_TYPE, METADATA)
def cp(session: Session, sources: tuple[str, ...], target: str, **options: Any) -> None:
    """Copy between this machine and S3, or within S3.

    What is remote is written s3://BUCKET/KEY. Within S3 the server copies, and no data passes through here.

    \b
    Examples:
      holdfast cp movie.mkv s3://films/
      holdfast cp --recursive s3://films s3://films-copy
    """
    _transfer(session, [parse_place(text) for text in sources], parse_place(target), "Copying", options)


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...", type=REMOTE)
@click.argument("target", metavar="TARGET", type=REMOTE)
@transferring()
def mv(session: Session, sources: tuple[str, ...], target: str, **options: Any) -> None:
    """Copy as `cp`, then delete each source whose copy is whole.

    \b
    Example:
      holdfast mv s3://inbox/scan.pdf s3://papers/2026/
    """
    places = [parse_place(text) for text in sources]
    _transfer(session, places, parse_place(target), "Moving", options, moves=True)


def _path(text: str) -> Any:
    place = parse_place(text)
    if isinstance(place, Local):
        return place.path
    raise click.UsageError(f"{text} is not on this machine: `holdfast cp` copies within S3")


def _transfer(
    session: Session, sources: list[Place], target: Place, what: str, options: dict[str, Any], *, moves: bool = False
) -> None:
    from holdfast.cli.client.copying import Planner
    from holdfast.cli.client.matching import Filter

    headers = headers_of(options.get("content_type", ""), options.get("metadata", ()))
    if len(sources) == 1 and not moves and (isinstance(sources[0], Stream) or isinstance(target, Stream)):
        _stream(session, sources[0], target, headers, options)
        return
    reporter = session.reporter
    with session.transfers(headers=headers, moves=moves, may_replace=not options["no_clobber"]) as transfers:
        planner = Planner(
            transfers.connection,
            Filter.of(options["include"], options["exclude"]),
            failed=reporter.fail,
            left_out=lambda text: reporter.note(f"Left out {shown(text)}"),
            recursive=options["recursive"],
            follow=options.get("follow", False),
            version_id=options.get("version_id", ""),
        )
        began = transfers.clock.monotonic()
        tally = transfers.run(planner.jobs(sources, target), what)
        transfers.tell(tally, transfers.clock.monotonic() - began)


def _stream(session: Session, source: Place, target: Place, headers: dict[str, Any], options: dict[str, Any]) -> None:
    if isinstance(source, Remote) and isinstance(target, Stream):
        from holdfast.cli.client.reading import Span, write_out

        write_out(session.connect(), source, STANDARD_OUTPUT, Span(), options.get("version_id", ""))
        return
    if not isinstance(source, Stream) or not isinstance(target, Remote):
        raise InvalidRequest("`-` goes with one s3://BUCKET/KEY on the other side")
    if target.is_folder:
        raise InvalidRequest(f"{target} is a folder, and standard input has no name: write s3://BUCKET/KEY")
    if sys.stdin.isatty():
        session.reporter.note("Reading from the terminal, until Ctrl-D")
    from holdfast.cli.client.upload import Uploader

    with session.transfers() as transfers, session.reporter.meter("Uploading") as meter:
        conditions = {"IfNoneMatch": "*"} if options["no_clobber"] else {}
        uploader = Uploader(
            transfers.connection, transfers.crew, transfers.notes, meter.advance, {**headers, **conditions}
        )
        done = uploader.put_stream(sys.stdin.buffer, target)
    session.reporter.done(
        f"- -> {shown(str(target))}",
        status="done", source="-", target=str(target), bytes=done.size, etag=done.etag, resumed_bytes=0,
    )  # fmt: skip


@click.command()
@click.argument("remotes", nargs=-1, required=True, metavar="s3://BUCKET/KEY...", type=REMOTE)
@click.option("--range", "span", default="", metavar="FIRST-LAST", help="Those bytes, counted from 0, both included.")
@click.option("--tail", type=click.IntRange(0), metavar="N", help="The last N bytes.")
@VERSION
@connected(results_are_bytes=True)
def cat(session: Session, remotes: tuple[str, ...], span: str, tail: int | None, version_id: str) -> None:
    """Write objects to standard output.

    \b
    Examples:
      holdfast cat s3://logs/today.jsonl | tail
      holdfast cat --range 0-1023 s3://disks/image.raw | xxd
    """
    from holdfast.cli.client.reading import Span, write_out

    if span and tail is not None:
        raise click.UsageError("--range and --tail exclude each other")
    wanted = Span.of(span) if span else Span(tail=tail)
    connection = session.connect()
    for text in remotes:
        write_out(connection, parse_remote(text), STANDARD_OUTPUT, wanted, version_id)


@click.command()
@click.argument("remotes", nargs=-1, required=True, metavar="s3://BUCKET/KEY...", type=REMOTE)
@RECURSIVE
@click.option("--versions", is_flag=True, help="All versions and delete markers, for ever.")
@VERSION
@filtered
@DRY_RUN
@YES
@connected(quiet=True, goes_on=True)
def rm(session: Session, remotes: tuple[str, ...], **options: Any) -> None:
    """Delete objects; with --recursive, all in a folder or bucket.

    In a bucket with versions a deletion hides the object, and --versions removes it. A recursive deletion asks first;
    where there is no terminal to ask on, it wants --yes.

    \b
    Examples:
      holdfast rm s3://inbox/scan.pdf
      holdfast rm --recursive s3://inbox/old
    """
    from holdfast.cli.client.deleting import delete

    if options["version_id"] and (options["recursive"] or options["versions"] or len(remotes) > 1):
        raise click.UsageError("--version-id names one version of one object")
    connection = session.connect()
    with session.crew() as crew:
        for text in remotes:
            delete(connection, crew, session.reporter, parse_remote(text), **options)


@click.command()
@click.argument("remotes", nargs=-1, required=True, metavar="s3://BUCKET[/KEY]...", type=REMOTE)
@VERSION
@connected()
def stat(session: Session, remotes: tuple[str, ...], version_id: str) -> None:
    """Tell everything that is known of an object or a bucket.

    \b
    Example:
      holdfast stat s3://papers/2026/report.pdf
    """
    from holdfast.cli.client.showing import show_details

    connection = session.connect()
    for text in remotes:
        show_details(connection, session.reporter, parse_remote(text), version_id)


@click.command()
@click.argument("remotes", nargs=-1, required=True, metavar="s3://BUCKET[/FOLDER]...", type=REMOTE)
@click.option("--depth", "-d", default=0, type=click.IntRange(0), metavar="N", help="Also of folders so deep inside.")
@click.option("--versions", is_flag=True, help="Count every version.")
@EXACT
@connected()
def du(session: Session, remotes: tuple[str, ...], depth: int, versions: bool, exact: bool) -> None:
    """Sum up the sizes of objects in a folder or bucket.

    \b
    Example:
      holdfast du --depth 1 s3://photos
    """
    from holdfast.cli.client import showing

    connection = session.connect()
    for text in remotes:
        showing.show_usage(
            connection, session.reporter, parse_remote(text), showing.Units(exact), depth=depth, versions=versions
        )


@click.command()
@click.argument("remote", metavar="s3://BUCKET[/FOLDER]", type=REMOTE)
@click.option("--depth", "-d", default=0, type=click.IntRange(0), metavar="N", help="No deeper than that.")
@EXACT
@connected()
def tree(session: Session, remote: str, depth: int, exact: bool) -> None:
    """Draw what is in a folder or bucket as a tree.

    \b
    Example:
      holdfast tree --depth 2 s3://photos
    """
    from holdfast.cli.client import showing

    showing.show_tree(session.connect(), session.reporter, parse_remote(remote), showing.Units(exact), depth=depth)


@click.command()
@click.argument("source", metavar="SOURCE", type=REMOTE)
@click.argument("target", metavar="TARGET", type=REMOTE)
@click.option("--delete", is_flag=True, help="Delete from TARGET what SOURCE has not.")
@click.option("--checksum", "by_content", is_flag=True, help="Compare contents (MD5) instead of times.")
@DRY_RUN
@FOLLOW
@filtered
@YES
@connected(quiet=True, goes_on=True)
def mirror(session: Session, source: str, target: str, **options: Any) -> None:
    """Make TARGET hold what SOURCE holds, by copying what differs.

    They are a directory and a bucket or folder, either way, or two of these. Only what differs is copied: by size, then
    by time and contents. Nothing is deleted without --delete.

    \b
    Examples:
      holdfast mirror --delete photos/ s3://photos
      holdfast mirror --dry-run s3://photos s3://photos-copy
    """
    from holdfast.cli.client.matching import Filter
    from holdfast.cli.client.mirroring import Mirror, Wishes

    one, other = parse_place(source), parse_place(target)
    if isinstance(one, Stream) or isinstance(other, Stream):
        raise click.UsageError("a mirror is of directories and folders: `-` is neither")
    wishes = Wishes(Filter.of(options.pop("include"), options.pop("exclude")), **options)
    with session.transfers() as transfers:
        Mirror(transfers, wishes, one, other).run()


@click.command()
@click.argument("remote", metavar="s3://BUCKET/KEY", type=REMOTE)
@click.option("--expires", default="1h", show_default=True, metavar="TIME", help="How long, up to 7d.")
@click.option("--put", "for_upload", is_flag=True, help="A link that takes an upload.")
@VERSION
@connected()
def share(session: Session, remote: str, expires: str, for_upload: bool, version_id: str) -> None:
    """Print a link that reads one object without a key, for a while.

    \b
    Examples:
      holdfast share --expires 2d s3://papers/2026/report.pdf
      curl -T scan.pdf "$(holdfast share --put s3://inbox/scan.pdf)"
    """
    from holdfast.cli.client.sharing import make_link

    make_link(
        session.connect(), session.reporter, parse_remote(remote), expires,
        for_upload=for_upload, version_id=version_id,
    )  # fmt: skip
