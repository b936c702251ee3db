"""File systems of a test's own: small ones that fill up, disks that are pulled, die, and are put back.

A process keeps a mount namespace alive; whatever is started with `prefix` in front sees what is mounted there, and
nobody else does. A disk stays mounted at a place of its own while it is bound to, and let go of at, the place where the
store looks for it: so what is on it survives being pulled. An unmount is lazy, as that of a disk which is gone:
processes keep what they have open, and find an empty mount point when they look again.

A disk is a tmpfs, for which no root is needed (the namespace is then a user's, too); or, where `why_no_loops` finds
nothing against it, an ext4 in a file behind a loop device, which can also die: then everything on it answers EIO. The
file is in memory, so that many syncs take no time, and has no name. A loop device is detached by the kernel with the
last mount of it, and the mounts are gone with the last process in the namespace: nothing is left behind, also when the
test is killed.
"""

import errno
import fcntl
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

# A mount is a system call; what takes longer hangs.
MOUNT_MAX_SECONDS = 30.0

# EXT4_IOC_SHUTDOWN of linux/ext4.h: no more reads or writes, and what the journal had not committed is lost.
_SHUTDOWN = 0x8004587D
_WITHOUT_LOG_FLUSH = struct.pack("=I", 2)

# Small enough to be quick. Inode tables are not left to a kernel thread; pages are as large as those of direct writes.
_MAKE_EXT4 = ("-q", "-F", "-E", "lazy_itable_init=0,nodiscard", "-b", "4096", "-i", "65536")
_PROBE_BYTES = 8 << 20
_IMAGES = "/dev/shm"  # noqa: S108 - a file in memory, made by mkstemp

# Detaching a device in use takes effect when it is unmounted. A shell of its own goes on when the test is killed.
_MOUNT_LOOP = """
device=$(losetup --find --show "$1") || exit
mount -t ext4 "$device" "$2"
status=$?
losetup --detach "$device"
exit $status
"""


class NoNamespaces(Exception):
    """This machine does not let its users make namespaces, or has no util-linux."""


def why_no_loops(home: Path) -> str:
    """Why this user cannot mount an ext4 from a file at a place in `home`; "" when that is possible."""
    place = home / "probe"
    place.mkdir()
    try:
        with _make_image(_PROBE_BYTES) as image:
            _mount_image(("unshare", "--mount"), image, place)
    except FileNotFoundError as error:
        return f"there is no {error.filename}"
    except subprocess.CalledProcessError as error:
        return str(error.stderr).strip()
    finally:
        place.rmdir()
    return ""


class Mounts:
    """A mount namespace; a context manager at whose end everything in it is gone."""

    def __init__(self, home: Path, *, loops: bool = False) -> None:
        """Disks are kept below `home`, an existing directory. With `loops` they are ext4, else tmpfs."""
        self._home = home
        self._loops = loops
        self._images: dict[str, BinaryIO] = {}
        self._keeper: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        # It ends when its input does, so it does not outlive a test that is killed.
        kind = ["--mount"] if self._loops else ["--map-root-user", "--mount"]
        command = ["unshare", *kind, "sh", "-c", "echo; exec cat"]
        try:
            self._keeper = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603
        except FileNotFoundError:
            raise NoNamespaces("there is no unshare") from None
        assert self._keeper.stdout is not None
        if not self._keeper.stdout.readline():
            self.__exit__(None, None, None)
            raise NoNamespaces(f"unshare {' '.join(kind)} is refused")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._keeper is not None:
            self._keeper.communicate()
        for image in self._images.values():
            image.close()

    @property
    def prefix(self) -> tuple[str, ...]:
        """What a command is started with to be inside: it enters, and becomes the command."""
        user = () if self._loops else ("--user", "--preserve-credentials")
        return ("nsenter", f"--target={self._inside.pid}", "--mount", *user, "--")

    def run(self, *command: object) -> str:
        """What a command says. Raises CalledProcessError."""
        return _run(*self.prefix, *command)

    def make_disk(self, name: str, size_bytes: int) -> None:
        """A new, empty disk."""
        place = self._disk(name)
        place.mkdir()
        if self._loops:
            self._images[name] = _make_image(size_bytes)
            _mount_image(self.prefix, self._images[name], place)
            # A new store wants an empty directory.
            self.run("rmdir", place / "lost+found")
        else:
            self.run("mount", "-t", "tmpfs", "-o", f"size={size_bytes},mode=0700", f"disk-{name}", place)

    def insert(self, name: str, place: Path) -> None:
        """Mount a disk at `place`, an existing directory."""
        self.run("mount", "--bind", self._disk(name), place)

    def pull(self, place: Path) -> None:
        """Take away what is mounted at `place`."""
        self.run("umount", "--lazy", place)

    def kill(self, name: str) -> None:
        """A disk that dies: it stays where it is, and from here on everything on it answers EIO. Needs loops."""
        assert self._loops, "a tmpfs does not die"
        inside = Path(f"/proc/{self._inside.pid}/root") / self._disk(name).relative_to("/")
        descriptor = os.open(inside, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, _WITHOUT_LOG_FLUSH)
        finally:
            os.close(descriptor)

    def revive(self, name: str) -> None:
        """A disk that had died, as it was when it did, ready to be inserted again; who had it open does not see it."""
        # The kernel may still write to the old image what was under way. A disk that came back is another device.
        old = self._images[name]
        new = self._images[name] = _new_image()
        _run("cp", "--sparse=always", f"/proc/{os.getpid()}/fd/{old.fileno()}", new.name)
        old.close()
        self.run("umount", "--lazy", self._disk(name))
        _mount_image(self.prefix, new, self._disk(name))

    @property
    def _inside(self) -> "subprocess.Popen[bytes]":
        assert self._keeper is not None, "not entered"
        return self._keeper

    def _disk(self, name: str) -> Path:
        return self._home / f"disk-{name}"


def _new_image() -> BinaryIO:
    """An empty file; it has a name until it is mounted."""
    descriptor, name = tempfile.mkstemp(dir=_IMAGES, prefix="holdfast-disk-")
    os.close(descriptor)
    return Path(name).open("r+b")


def _make_image(size_bytes: int) -> BinaryIO:
    """An empty ext4. Raises FileNotFoundError when there is no mkfs.ext4, CalledProcessError."""
    make = shutil.which("mkfs.ext4", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if make is None:
        raise FileNotFoundError(errno.ENOENT, "not found", "mkfs.ext4")
    image = _new_image()
    try:
        image.truncate(size_bytes)
        _run(make, *_MAKE_EXT4, image.name)
    except BaseException:
        Path(image.name).unlink()
        raise
    return image


def _mount_image(inside: Sequence[str], image: BinaryIO, place: Path) -> None:
    """Mount an image, which loses its name. Raises CalledProcessError, FileNotFoundError."""
    try:
        _run(*inside, "sh", "-c", _MOUNT_LOOP, "sh", image.name, place)
    finally:
        Path(image.name).unlink()


def _run(*command: object) -> str:
    return subprocess.run(  # noqa: S603 - what is run is the test's choice
        [*map(str, command)], check=True, capture_output=True, text=True, timeout=MOUNT_MAX_SECONDS
    ).stdout
