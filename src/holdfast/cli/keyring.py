"""`keyring backup|verify|restore|detach|attach|rotate`: the keys of a store in the operator's hands.

A passphrase never comes from the command line: it is asked for on the terminal, or read from a file. Order within a
change: the new key is on stable storage first, then the keyring is wrapped under it in one commit, then the old key is
taken away. So whatever is cut off, one of the two keys opens the store.
"""

import asyncio
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import click
import msgspec

from holdfast.cli.catalogue import PAGE_COUNT
from holdfast.cli.keys import (
    REKEYED_NAME,
    HeldKeys,
    KeySources,
    drives_with_kek,
    read_passphrase,
    remove_kek,
    write_kek,
)
from holdfast.cli.kms import Kms
from holdfast.cli.opening import OpenStore, find_store, key_sources, open_metadata
from holdfast.cli.output import Output, count
from holdfast.cli.settings import Settings
from holdfast.cli.system import SystemRandomness
from holdfast.core.disk import Disk
from holdfast.core.errors import (
    AccessDenied,
    AlreadyExists,
    Corrupt,
    HoldfastError,
    InvalidRequest,
    NotFound,
    PreconditionFailed,
    Unavailable,
)
from holdfast.core.ids import new_token
from holdfast.core.ranges import KeyRange, prefix_range
from holdfast.crypto.backup import fingerprint, read_backup, write_backup
from holdfast.crypto.backup import restore as open_backup
from holdfast.crypto.envelope import rewrap
from holdfast.crypto.kek import (
    KeyEncryptionKey,
    encode_kek_file,
    kek_from_passphrase,
    new_kek,
    new_passphrase_parameters,
    passphrase_parameters,
    wrap_keyring,
)
from holdfast.crypto.keyring import Keyring, Purpose, rotated
from holdfast.drives.os_disk import OsDisk
from holdfast.meta.interface import HasToken, Meta, Put, Row
from holdfast.meta.sealed import RowKeys, SealedMeta
from holdfast.objects.rows import CONTENTS, KEYRING, LAYOUTS, ContentRow, ProgressRow, progress_row_key

Passphrase = Callable[[], str]
"""Asks, or reads a file, once it is clear that it is needed."""


Rewrap = Callable[[bytes, bytes], bytes]
"""A wrapped key and its content's id, to the key wrapped under the newest epoch."""


def passphrase_from(path: Path | None, prompt: str, *, new: bool = False) -> Passphrase:
    """Raises InvalidRequest when there is neither a file nor a terminal to ask on; AccessDenied for the file."""

    def read() -> str:
        if path is not None:
            return read_passphrase(path)
        if not sys.stdin.isatty():
            raise InvalidRequest("no terminal to ask for the passphrase on: put it into a file and name that")
        return str(click.prompt(prompt, hide_input=True, confirmation_prompt=new))

    return read


def destination(settings: Settings, file: Path | None, secret: Path | None, *, asked: bool) -> Path | Kms | Passphrase:
    """Where a key is detached to: the one place that was named. Raises click.UsageError."""
    named = (file is not None) + (secret is not None) + asked
    if named > 1 or (not named and settings.kms is None):
        raise click.UsageError("give one of --kek-file, --passphrase-file, --passphrase and --kms")
    if file is not None:
        return file.absolute()
    if not named and settings.kms is not None and settings.kms_token_file is not None:
        return Kms(settings.kms, settings.kms_token_file)
    return passphrase_from(secret, "New passphrase", new=True)


async def backup(opened: OpenStore, output: Output, path: Path, passphrase: Passphrase) -> bool:
    """Write the keyring, wrapped under a passphrase, to a new file."""
    parameters = new_passphrase_parameters(opened.randomness)
    text = write_backup(opened.keyring, kek_from_passphrase(passphrase(), parameters), opened.randomness)
    _write_new(opened.disk, path, text)
    output.say(f"keyring {fingerprint(opened.keyring)} written to {path}")
    output.say("it opens with the passphrase alone: keep both, apart from the drives and from each other")
    output.document({"fingerprint": fingerprint(opened.keyring), "path": str(path)})
    return True


async def verify(opened: OpenStore, output: Output, path: Path | None, passphrase: Passphrase) -> bool:
    """Say what the keyring is; with a backup, whether that holds the same one."""
    own = fingerprint(opened.keyring)
    output.say(f"the store opens with keyring {own}, {count(len(opened.keyring.epochs), 'epoch')}")
    if path is None:
        output.document({"fingerprint": own})
        return True
    keyring = _opened_backup(path, passphrase)
    same = fingerprint(keyring) == own
    if same:
        output.say(f"{path} is whole and holds the same keyring")
    elif keyring.store != opened.site.store:
        output.say(f"{path} is whole and belongs to another store, {keyring.store.hex()}")
    else:
        output.say(f"{path} is whole and older: the keyring was rotated since; make a new backup")
    output.document({"fingerprint": own, "backup": fingerprint(keyring), "same": same})
    return same


async def restore(settings: Settings, output: Output, path: Path, passphrase: Passphrase) -> bool:
    """Put a backup's keyring back where the store's own cannot be opened any more."""
    disk, randomness = OsDisk(), SystemRandomness()
    site = find_store(settings, disk)
    keyring = _opened_backup(path, passphrase)
    if keyring.store != site.store:
        raise InvalidRequest(f"{path} is of store {keyring.store.hex()}, these drives are of {site.store.hex()}")
    async with await open_metadata(settings, site, disk, randomness) as local:
        await _check_needed(local, key_sources(settings, site, disk), keyring, path)
        await _check_opens(SealedMeta(local, RowKeys.of(keyring, randomness), plain_prefixes=[KEYRING]), path)
        kek = new_kek(randomness)
        left = _put_on_drives(disk, list(site.drives.values()), kek)
        wrapped = wrap_keyring(keyring, kek, randomness)
        await local.commit([Put(KEYRING, wrapped)], token=new_token(randomness))
    output.say(f"the store opens with keyring {fingerprint(keyring)} again; its new key lies on the drives")
    _say_left(output, left)
    output.document({"fingerprint": fingerprint(keyring), "left": [str(path) for path in left]})
    return not left


async def detach(opened: OpenStore, output: Output, to: Path | Kms | Passphrase) -> bool:
    """Take the key off the drives: into a file elsewhere, to a key management service, or into a passphrase."""
    on_drives = list(opened.site.drives.values())
    if not drives_with_kek(opened.disk, on_drives):
        raise InvalidRequest("the key is detached already: `holdfast keyring attach` first to change how")
    if isinstance(to, Path):
        _check_elsewhere(opened, to)
        kek = new_kek(opened.randomness)
        _write_new(opened.disk, to, encode_kek_file(kek))
        how = f"--kek-file {to}"
    elif isinstance(to, Kms):
        kek = new_kek(opened.randomness)
        kek = replace(kek, kms=await asyncio.to_thread(to.seal, kek.key))
        how = f"--kms {to.address} --kms-token-file {to.token_file}"
    else:
        kek = kek_from_passphrase(to(), new_passphrase_parameters(opened.randomness))
        how = "--passphrase-file FILE, a file with the passphrase"
    await _wrap(opened, opened.keyring, kek)
    left = remove_kek(opened.disk, on_drives)
    await _forget_old_wrappings(opened)
    output.say(f"the key is on no drive any more. Every command needs {how} from now on")
    output.say("restart the server with it now: a process that dies cannot open the store again until then")
    output.say("a drive that was missing just now still has the old key, and old metadata that it opens: wipe it")
    for drive in left:
        output.say(f"{drive}: the old key could not be removed, and opens nothing current any more")
    output.document({"detached": True, "left": [str(path) for path in left]})
    return not left


async def attach(opened: OpenStore, output: Output) -> bool:
    """Put the key back on the drives, so that the store starts without asking."""
    on_drives = [drive.directory for drive in opened.drives.values()]
    kek = new_kek(opened.randomness)
    left = _put_on_drives(opened.disk, on_drives, kek)
    await _wrap(opened, opened.keyring, kek)
    output.say(f"the key lies on {count(len(on_drives) - len(left), 'drive')}: the store starts without being given it")
    output.say("there is no protection against theft; restart the server without the key's option")
    _say_left(output, left)
    output.document({"attached": True, "left": [str(path) for path in left]})
    return not left


def _put_on_drives(disk: Disk, drives: Sequence[Path], kek: KeyEncryptionKey) -> list[Path]:
    """Put the key on the drives; those that did not take it. Raises Unavailable when none did."""
    left: list[Path] = []
    for drive in drives:
        try:
            write_kek(disk, [drive], kek)
        except OSError:
            left.append(drive)
    if len(left) == len(drives):
        raise Unavailable("no drive took the key: nothing was changed; are they full, or read-only?")
    return left


def _say_left(output: Output, left: Sequence[Path]) -> None:
    for drive in left:
        output.say(f"{drive}: the key could not be written; `holdfast keyring attach` does it again")


async def rotate(opened: OpenStore, output: Output, *, force: bool) -> bool:
    """Add an epoch to the keyring, and wrap every content's keys anew under it."""
    if (opened.run / REKEYED_NAME).exists() and not force:
        raise InvalidRequest(
            "the keyring was wrapped under another key since the server was started, so its processes could not take "
            "up a new epoch: restart the server first; with no server running, --force"
        )
    keyring = rotated(opened.keyring, opened.randomness)
    await _commit_keyring(opened, wrap_keyring(keyring, opened.keys.kek, opened.randomness))
    rows = await _rewrap_contents(opened, output)
    output.say(f"epoch {keyring.current.number} seals from now on; the keys of {count(rows, 'content')} wrapped anew")
    output.say(f"the keyring is {fingerprint(keyring)} now: older backups of it do not open what comes, make a new one")
    output.document({"epoch": keyring.current.number, "rewrapped": rows, "fingerprint": fingerprint(keyring)})
    return True


async def _wrap(opened: OpenStore, keyring: Keyring, kek: KeyEncryptionKey) -> None:
    """Wrap the keyring under another key."""
    await _commit_keyring(opened, wrap_keyring(keyring, kek, opened.randomness), kek)
    (opened.run / REKEYED_NAME).touch(mode=0o600)


async def _commit_keyring(opened: OpenStore, wrapped: bytes, kek: KeyEncryptionKey | None = None) -> None:
    try:
        await opened.local.commit(
            [Put(KEYRING, wrapped)], [HasToken(KEYRING, opened.keys.row.token)], token=new_token(opened.randomness)
        )
    except PreconditionFailed:
        raise AlreadyExists("the keyring was changed meanwhile; look at it again") from None
    if kek is not None:
        opened.keys.kek = kek
    await opened.keys.follow(opened.local)


async def _forget_old_wrappings(opened: OpenStore) -> None:
    """Let the log and the checkpoints forget the keyring as it was wrapped before: two checkpoints are kept."""
    for turn in range(2):
        # A checkpoint of its own needs a commit of its own.
        row = ProgressRow(ProgressRow.SHAPE, bytes([turn]))
        await opened.meta.commit([Put(progress_row_key("keyring"), row.encode())], token=new_token(opened.randomness))
        await opened.local.checkpoint()


async def _rewrap_contents(opened: OpenStore, output: Output) -> int:
    """Wrap the root keys of every content under the newest epoch; how many there were."""
    whole = prefix_range(CONTENTS)
    start: bytes | None = whole.start
    wrappers = [
        partial(rewrap, opener=opened.keyring.opener(purpose), sealer=opened.keyring.sealer(purpose, opened.randomness))
        for purpose in (Purpose.READ, Purpose.WALK)
    ]
    done = 0
    with output.progress("wrapping keys anew") as progress:
        while start is not None:
            page = await opened.meta.scan(KeyRange(start, whole.end), limit=PAGE_COUNT)
            rows = [entry for entry in page.entries if isinstance(entry, Row)]
            for row in rows:
                done += await _rewrap_one(opened, row, *wrappers)
            progress.at(done)
            start = page.resume
    return done


async def _rewrap_one(opened: OpenStore, row: Row, rewrap_read: Rewrap, rewrap_walk: Rewrap) -> bool:
    """Whether there was anything to wrap. A row that changes meanwhile is read again."""
    content = row.key[len(CONTENTS) :]
    while True:
        value = ContentRow.decode(row.value)
        if value.root is None or value.walk_root is None:
            return False
        changed = msgspec.structs.replace(
            value,
            root=rewrap_read(value.root, content),
            walk_root=rewrap_walk(value.walk_root, content),
        )
        if changed == value:
            return True
        try:
            await opened.meta.commit(
                [Put(row.key, changed.encode())], [HasToken(row.key, row.token)], token=new_token(opened.randomness)
            )
            return True
        except PreconditionFailed:
            try:
                row = await opened.meta.get(row.key)
            except NotFound:
                return False


def _opened_backup(path: Path, passphrase: Passphrase) -> Keyring:
    """Raises AccessDenied, Corrupt, InvalidRequest."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise AccessDenied(f"{path}: {error.strerror}") from None
    parameters = passphrase_parameters(read_backup(data).wrapped)
    if parameters is None:
        raise InvalidRequest(f"{path} is not wrapped under a passphrase")
    return open_backup(data, kek_from_passphrase(passphrase(), parameters))


async def _check_needed(local: Meta, sources: KeySources, keyring: Keyring, path: Path) -> None:
    """Raises InvalidRequest when the store's own keyring opens and is another."""
    try:
        held = await HeldKeys.open(local, sources)
    except HoldfastError:
        return
    if held.keyring != keyring:
        raise InvalidRequest(
            f"the store's own keyring {fingerprint(held.keyring)} opens, and {path} holds another: nothing to restore"
        )


async def _check_opens(meta: SealedMeta, path: Path) -> None:
    """Raises InvalidRequest when the keyring lacks the newest epochs."""
    try:
        for table in (LAYOUTS, CONTENTS):
            await meta.scan(prefix_range(table), limit=PAGE_COUNT)
    except Corrupt:
        raise InvalidRequest(
            f"{path} does not open the store's rows: the keyring was rotated after it was made"
        ) from None


def _check_elsewhere(opened: OpenStore, path: Path) -> None:
    for drive in opened.site.places.values():
        if path.resolve().is_relative_to(drive.resolve()):
            raise InvalidRequest(f"{path} lies on a drive of the store: keep the key elsewhere")


def _write_new(disk: Disk, path: Path, data: bytes) -> None:
    """A new file, for its owner alone, durable; none when it raises AlreadyExists, AccessDenied, Unavailable."""
    try:
        file = disk.open(path, exclusive=True)
    except FileExistsError:
        raise AlreadyExists(f"{path} is there already") from None
    except OSError as error:
        raise AccessDenied(f"{path}: {error.strerror}") from None
    try:
        file.write((data,), 0)
        file.sync()
    except OSError as error:
        with suppress(OSError):
            disk.unlink(path)
        raise Unavailable(f"{path} could not be written: {error.strerror}") from None
    finally:
        file.close()
    disk.sync_directory(path.parent)
