"""The operator's commands: what they are called, what they take, what they say of themselves.

Each opens the store as one more process, beside a server or without one, does its work in a module of its own, and
ends with status 0 when all is well, 1 when something is wrong, 2 when it was called wrongly.
"""

import os
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from holdfast.cli import settings as settings_module
from holdfast.cli.output import Output
from holdfast.cli.settings import OPTIONS, Option, Settings

if TYPE_CHECKING:
    from holdfast.cli.opening import OpenStore

# Options that decide how a store is opened: every command takes them.
OPENING_OPTIONS = ("kek-file", "passphrase-file", "kms", "kms-token-file", "run-dir")


def click_option(option: Option) -> Callable[[Callable[..., None]], Callable[..., None]]:
    shown = "" if option.default is None else f"; default: {settings_module.in_words(option)}"
    described = f"{option.help}  [{option.variable}{shown}]"
    return click.option(f"--{option.name}", option.field, metavar=option.metavar, help=described)


def with_settings(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command DIR..., --config, and those options of the settings table; it gets `Settings` first."""
    options = [option for option in OPTIONS if option.name in names]

    def wrap(command: Callable[..., None]) -> Callable[..., None]:
        def run(drives: tuple[Path, ...], config: str | None, **given: Any) -> None:
            named = {option.name: given.pop(option.field) for option in options}
            settings = settings_module.load(drives, named, os.environ, Path(config) if config else None)
            command(settings, **given)

        run.__doc__, run.__name__ = command.__doc__, command.__name__
        run.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]
        wrapped: Callable[..., None] = run
        for option in reversed(options):
            wrapped = click_option(option)(wrapped)
        wrapped = click.option("--config", metavar="FILE", envvar="HOLDFAST_CONFIG", help="Settings as TOML.")(wrapped)
        return click.argument("drives", nargs=-1, type=click.Path(path_type=Path), metavar="DIR...")(wrapped)

    return wrap


PATH = click.Path(path_type=Path)

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


def run_with_store(settings: Settings, as_json: bool, work: Callable[["OpenStore", Output], Awaitable[bool]]) -> None:
    """Open the store and do a command's work; exit status 1 unless all is well."""
    from holdfast.cli.opening import open_store

    output = Output(as_json=as_json)

    async def run() -> bool:
        async with open_store(settings) as opened:
            return await work(opened, output)

    run_to_end(run())


def run_to_end(work: Coroutine[Any, Any, bool]) -> None:
    import uvloop

    if not uvloop.run(work):
        raise SystemExit(1)


@click.command()
@with_settings("code", "copies", "matrix", *OPENING_OPTIONS)
@json_option
def status(settings: Settings, as_json: bool) -> None:
    """Say how a store is: its drives, and what needs repair.

    \b
    Examples:
      holdfast status /mnt/disk*
      holdfast status --json /mnt/disk1 | jq .health
    """
    from holdfast.cli.status import show_status

    run_with_store(settings, as_json, show_status)


@click.command()
@with_settings(*OPENING_OPTIONS)
@json_option
def scrub(settings: Settings, as_json: bool) -> None:
    """Read and check every fragment on every drive now.

    What is bad is told to repair. Interrupted, the next call goes on where this one stopped. The server does the same
    in the background, over a month.

    \b
    Example:
      holdfast scrub /mnt/disk*
    """
    from holdfast.cli.repair import scrub as work

    run_with_store(settings, as_json, work)


@click.command()
@with_settings(*OPENING_OPTIONS)
@json_option
def repair(settings: Settings, as_json: bool) -> None:
    """Look up every block now, and mend what is not as it should be.

    Does at full speed what the server does by itself. May be interrupted and called again at any time.

    \b
    Example:
      holdfast repair /mnt/disk*
    """
    from holdfast.cli.repair import repair as work

    run_with_store(settings, as_json, work)


@click.command()
@with_settings(*OPENING_OPTIONS)
@click.option("--repair", "mending", is_flag=True, help="Mend what can be mended.")
@click.option("--read", is_flag=True, help="Read every fragment and all of the metadata too.")
@json_option
def fsck(settings: Settings, as_json: bool, mending: bool, read: bool) -> None:
    """Check that all is where it should be, and nothing else is.

    Prints each finding, and the objects that cannot be read now. Changes nothing without --repair, but that --read
    mends damage in the metadata that it comes upon.

    \b
    Examples:
      holdfast fsck /mnt/disk*
      holdfast fsck --read --repair /mnt/disk*
    """
    from holdfast.cli.repair import check

    run_with_store(settings, as_json, lambda opened, output: check(opened, output, read=read, mending=mending))


@click.group()
def drive() -> None:
    """List, add, replace and drain drives."""


@drive.command("list")
@with_settings(*OPENING_OPTIONS)
@json_option
def drive_list(settings: Settings, as_json: bool) -> None:
    """List the store's drives.

    \b
    Example:
      holdfast drive list /mnt/disk1
    """
    from holdfast.cli.drives import list_drives

    run_with_store(settings, as_json, list_drives)


@drive.command("add")
@with_settings("code", "copies", "matrix", *OPENING_OPTIONS)
@click.argument("new", type=PATH, metavar="NEW_DIR")
@click.option("--also", "more", type=PATH, multiple=True, metavar="NEW_DIR", help="Another new drive, in one change.")
@json_option
def drive_add(settings: Settings, as_json: bool, new: Path, more: tuple[Path, ...]) -> None:
    """Add an empty directory to the store as a drive.

    NEW_DIR is not among DIR, which name drives of the store. A running server takes it up within seconds and moves data
    there. With more drives, a stronger code may become the default for new objects: what is kept by the old one is
    under-protected until `recode`.

    \b
    Examples:
      holdfast drive add /mnt/disk1 /mnt/disk7
      holdfast drive add /mnt/disk1 /mnt/disk7 --also /mnt/disk8
    """
    from holdfast.cli.drives import add_drives

    directories = [path.absolute() for path in (new, *more)]
    run_with_store(settings, as_json, lambda opened, output: add_drives(opened, output, directories))


@drive.command("replace")
@with_settings(*OPENING_OPTIONS)
@click.argument("old", metavar="OLD")
@click.argument("new", type=PATH, metavar="NEW_DIR")
@click.option("--force", is_flag=True, help="Give OLD up although it answers.")
@json_option
def drive_replace(settings: Settings, as_json: bool, old: str, new: Path, force: bool) -> None:
    """Replace a lost drive by one in an empty directory.

    NEW_DIR may be where the lost one was. OLD is the drive's id, its beginning, or the directory where it was. What it
    held is made again from the others.

    \b
    Examples:
      holdfast drive replace /mnt/disk1 3f9a /mnt/new
      holdfast drive replace /mnt/disk1 /mnt/disk3 /mnt/disk3
    """
    from holdfast.cli.drives import replace_lost

    directory = new.absolute()
    run_with_store(settings, as_json, lambda opened, output: replace_lost(opened, output, old, directory, force=force))


@drive.command("drain")
@with_settings("code", "copies", "matrix", *OPENING_OPTIONS)
@click.argument("name", metavar="DRIVE")
@json_option
def drive_drain(settings: Settings, as_json: bool, name: str) -> None:
    """Bring all data off DRIVE, then let go of it.

    DRIVE is the drive's id, its beginning, or its directory. Interrupted, the same command goes on. When it is done
    it says that the drive can be removed.

    \b
    Example:
      holdfast drive drain /mnt/disk1 /mnt/disk3
    """
    from holdfast.cli.drives import drain

    run_with_store(settings, as_json, lambda opened, output: drain(opened, output, name))


@click.command()
@with_settings("code", "copies", "matrix", *OPENING_OPTIONS)
@json_option
def recode(settings: Settings, as_json: bool) -> None:
    """Write existing objects anew with another code.

    With the one that is given, else with the default for so many drives. Reads go on meanwhile. The old blocks are
    deleted after the grace. Interrupted, the server goes on with it, and so does the same command.

    \b
    Examples:
      holdfast recode /mnt/disk*
      holdfast recode --code 4+2 /mnt/disk*
    """
    from holdfast.cli.recoding import recode as work

    run_with_store(settings, as_json, work)


@click.group()
def keyring() -> None:
    """Back up, check, move and rotate the store's keys."""


@keyring.command("backup")
@with_settings(*OPENING_OPTIONS)
@click.argument("path", type=PATH, metavar="FILE")
@click.option("--backup-passphrase-file", "secret", type=PATH, metavar="FILE", help="The backup's passphrase.")
@json_option
def keyring_backup(settings: Settings, as_json: bool, path: Path, secret: Path | None) -> None:
    """Write the keyring to a new file, under a passphrase.

    Without --backup-passphrase-file the passphrase is asked for. Whoever has drives, backup and passphrase reads the
    store; who has lost every key reads it again with these three.

    \b
    Examples:
      holdfast keyring backup /mnt/disk1 keyring-backup
      holdfast keyring backup /mnt/disk1 keyring-backup --backup-passphrase-file secret.txt
    """
    from holdfast.cli.keyring import backup, passphrase_from

    ask = passphrase_from(secret, "Passphrase of the backup", new=True)
    run_with_store(settings, as_json, lambda opened, output: backup(opened, output, path.absolute(), ask))


@keyring.command("verify")
@with_settings(*OPENING_OPTIONS)
@click.option("--backup", "path", type=PATH, metavar="FILE", help="Check this backup too.")
@click.option("--backup-passphrase-file", "secret", type=PATH, metavar="FILE", help="The backup's passphrase.")
@json_option
def keyring_verify(settings: Settings, as_json: bool, path: Path | None, secret: Path | None) -> None:
    """Say whether a backup is whole, and of this keyring.

    Without --backup, say which keyring the store opens with.

    \b
    Example:
      holdfast keyring verify /mnt/disk1 --backup keyring-backup
    """
    from holdfast.cli.keyring import passphrase_from, verify

    ask = passphrase_from(secret, "Passphrase of the backup")
    run_with_store(settings, as_json, lambda opened, output: verify(opened, output, path, ask))


@keyring.command("restore")
@with_settings(*OPENING_OPTIONS)
@click.argument("path", type=PATH, metavar="FILE")
@click.option("--backup-passphrase-file", "secret", type=PATH, metavar="FILE", help="The backup's passphrase.")
@json_option
def keyring_restore(settings: Settings, as_json: bool, path: Path, secret: Path | None) -> None:
    """Open a store again by a backup, when its key is lost.

    A new key is put on its drives.

    \b
    Example:
      holdfast keyring restore /mnt/disk1 keyring-backup
    """
    from holdfast.cli.keyring import passphrase_from, restore

    ask = passphrase_from(secret, "Passphrase of the backup")
    run_to_end(restore(settings, Output(as_json=as_json), path, ask))


@keyring.command("detach")
@with_settings("kms", "kms-token-file", "run-dir")
@click.option("--kek-file", "file", type=PATH, metavar="FILE", help="Move the key to this new file.")
@click.option("--passphrase-file", "secret", type=PATH, metavar="FILE", help="Make it from the passphrase in a file.")
@click.option("--passphrase", "asked", is_flag=True, help="Make it from a passphrase that is asked for.")
@json_option
def keyring_detach(settings: Settings, as_json: bool, file: Path | None, secret: Path | None, asked: bool) -> None:
    """Take the key off the drives: who steals them reads nothing.

    It goes to a file that lies elsewhere, into a passphrase, or to a key management service. From then on every start,
    and every command, must be given --kek-file, --passphrase-file, or --kms and --kms-token-file.

    \b
    Examples:
      holdfast keyring detach /mnt/disk* --kek-file /media/stick/kek
      holdfast keyring detach /mnt/disk* --passphrase
      holdfast keyring detach /mnt/disk* --kms https://vault:8200/v1/transit/keys/holdfast --kms-token-file token
    """
    from holdfast.cli.keyring import destination, detach

    to = destination(settings, file, secret, asked=asked)
    settings = replace(settings, kek_file=None, passphrase_file=None)
    run_with_store(settings, as_json, lambda opened, output: detach(opened, output, to))


@keyring.command("attach")
@with_settings(*OPENING_OPTIONS)
@json_option
def keyring_attach(settings: Settings, as_json: bool) -> None:
    """Put the key back on the drives.

    The store starts without being given it from then on.

    \b
    Example:
      holdfast keyring attach /mnt/disk* --kek-file /media/stick/kek
    """
    from holdfast.cli.keyring import attach

    run_with_store(settings, as_json, attach)


@keyring.command("rotate")
@with_settings(*OPENING_OPTIONS)
@click.option("--force", is_flag=True, help="Although the server may have been started with an older key.")
@json_option
def keyring_rotate(settings: Settings, as_json: bool, force: bool) -> None:
    """Seal with new keys from now on.

    The keys of what is stored are wrapped anew; no data is written again.

    \b
    Example:
      holdfast keyring rotate /mnt/disk1
    """
    from holdfast.cli.keyring import rotate

    run_with_store(settings, as_json, lambda opened, output: rotate(opened, output, force=force))


@click.group()
def key() -> None:
    """Make, list, disable, delete S3 keys, and grant them buckets."""


def grants_options(command: Callable[..., None]) -> Callable[..., None]:
    command = click.option("--write", multiple=True, metavar="BUCKET", help="Let it put and delete there; * is all.")(
        command
    )
    return click.option("--read", multiple=True, metavar="BUCKET", help="Let it read and list there; * is all.")(
        command
    )


@key.command("create")
@with_settings(*OPENING_OPTIONS)
@click.option("--label", default="", metavar="TEXT", help="What the key is for.")
@grants_options
@json_option
def key_create(settings: Settings, as_json: bool, label: str, read: tuple[str, ...], write: tuple[str, ...]) -> None:
    """Make a key pair and print it: the secret this once.

    Without grants the key may do nothing yet. Only the root key, which `serve` prints, makes and deletes buckets.

    \b
    Example:
      holdfast key create /mnt/disk1 --label backups --read photos --write photos
    """
    from holdfast.cli.grants import create, parse_grants

    grants = parse_grants(read, write)
    run_with_store(settings, as_json, lambda opened, output: create(opened, output, label, grants))


@key.command("list")
@with_settings(*OPENING_OPTIONS)
@json_option
def key_list(settings: Settings, as_json: bool) -> None:
    """List the keys and what each may do, without secrets.

    \b
    Example:
      holdfast key list /mnt/disk1
    """
    from holdfast.cli.grants import show

    run_with_store(settings, as_json, show)


@key.command("grant")
@with_settings(*OPENING_OPTIONS)
@click.argument("access_key", metavar="KEY")
@grants_options
@click.option(
    "--revoke", multiple=True, metavar="BUCKET", help="First take away what it may do there; * is the grant for all."
)
@json_option
def key_grant(
    settings: Settings,
    as_json: bool,
    access_key: str,
    read: tuple[str, ...],
    write: tuple[str, ...],
    revoke: tuple[str, ...],
) -> None:
    """Change what KEY may do. Running servers follow within 5 s.

    \b
    Examples:
      holdfast key grant /mnt/disk1 HFAJ2X7Q --read photos
      holdfast key grant /mnt/disk1 HFAJ2X7Q --revoke photos --read photos
    """
    from holdfast.cli.grants import grant, parse_grants

    grants = parse_grants(read, write)
    run_with_store(settings, as_json, lambda opened, output: grant(opened, output, access_key, grants, revoke))


@key.command("disable")
@with_settings(*OPENING_OPTIONS)
@click.argument("access_key", metavar="KEY")
@json_option
def key_disable(settings: Settings, as_json: bool, access_key: str) -> None:
    """Refuse what KEY signs until it is enabled again. Running servers follow within 5 s.

    \b
    Example:
      holdfast key disable /mnt/disk1 HFAJ2X7Q
    """
    from holdfast.cli.grants import enable

    run_with_store(settings, as_json, lambda opened, output: enable(opened, output, access_key, enabled=False))


@key.command("enable")
@with_settings(*OPENING_OPTIONS)
@click.argument("access_key", metavar="KEY")
@json_option
def key_enable(settings: Settings, as_json: bool, access_key: str) -> None:
    """Accept again what the disabled KEY signs.

    \b
    Example:
      holdfast key enable /mnt/disk1 HFAJ2X7Q
    """
    from holdfast.cli.grants import enable

    run_with_store(settings, as_json, lambda opened, output: enable(opened, output, access_key, enabled=True))


@key.command("delete")
@with_settings(*OPENING_OPTIONS)
@click.argument("access_key", metavar="KEY")
@json_option
def key_delete(settings: Settings, as_json: bool, access_key: str) -> None:
    """Delete KEY for good. Running servers follow within 5 s.

    \b
    Example:
      holdfast key delete /mnt/disk1 HFAJ2X7Q
    """
    from holdfast.cli.grants import delete

    run_with_store(settings, as_json, lambda opened, output: delete(opened, output, access_key))


@click.group()
def metadata() -> None:
    """Back up and restore the metadata: names, versions, contents."""


@metadata.command("backup")
@with_settings(*OPENING_OPTIONS)
@click.argument("path", type=PATH, metavar="FILE")
@json_option
def metadata_backup(settings: Settings, as_json: bool, path: Path) -> None:
    """Write the metadata as it is now to a new file.

    The store may be served meanwhile. The file holds no keys: who reads it needs the keyring too (`keyring backup`).

    \b
    Example:
      holdfast metadata backup /mnt/disk1 metadata-monday
    """
    from holdfast.cli.metadata import backup

    run_with_store(settings, as_json, lambda opened, output: backup(opened, output, path.absolute()))


@metadata.command("restore")
@with_settings(*OPENING_OPTIONS)
@click.argument("path", type=PATH, metavar="FILE")
@click.option("--force", is_flag=True, help="Although drives are missing: they must not come back with older metadata.")
@json_option
def metadata_restore(settings: Settings, as_json: bool, path: Path, force: bool) -> None:
    """Bring the stopped store back to the moment of the backup FILE.

    Whatever was written since is given up. Objects of the backup whose blocks were deleted since are named; blocks
    are kept for --grace after a deletion, so a younger backup restores whole.

    \b
    Example:
      holdfast metadata restore /mnt/disk* metadata-monday
    """
    from holdfast.cli.metadata import restore

    run_to_end(restore(settings, Output(as_json=as_json), path.absolute(), force=force))


@click.command()
@with_settings()
@click.option(
    "--size",
    "megabytes",
    default=256,
    type=click.IntRange(1),
    metavar="MIB",
    show_default=True,
    help="What is written and read back on each, in MiB.",
)
@json_option
def doctor(settings: Settings, as_json: bool, megabytes: int) -> None:
    """Say whether directories and this machine can hold a store.

    Makes a drive in each DIR for trial, measures syncs and throughput, and leaves nothing behind. Directories of a
    running store can be examined too; that takes disk time from it. Exit status 1 when something must be changed first.

    \b
    Example:
      holdfast doctor /mnt/disk1 /mnt/disk2
    """
    from holdfast.cli.doctor import Doctor, examine_all
    from holdfast.cli.system import SystemClock, SystemRandomness
    from holdfast.core.errors import InvalidRequest
    from holdfast.core.limits import MIB
    from holdfast.drives.os_disk import OsDisk

    if not settings.drives:
        raise InvalidRequest("name at least one directory")
    examiner = Doctor(OsDisk(), SystemClock(), SystemRandomness(), megabytes * MIB)
    run_to_end(examine_all(examiner, Output(as_json=as_json), settings.drives))


COMMANDS = (doctor, status, scrub, repair, fsck, drive, recode, key, keyring, metadata)
