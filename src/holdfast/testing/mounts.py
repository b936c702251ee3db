"""File systems of a test's own: small ones that fill up, disks that are pulled and put back. Without root.

A process keeps a user and a mount namespace alive; whatever is started with `prefix` in front sees what is mounted
there, and nobody else does. A disk is a tmpfs that stays mounted at a place of its own while it is bound to, and let
go of at, the place where the store looks for it: so what is on it survives being pulled. An unmount is lazy, as that of
a disk which is gone: processes keep what they have open, and find an empty mount point when they look again.
"""

import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

# A mount is a system call; what takes longer hangs.
MOUNT_MAX_SECONDS = 10.0


class NoNamespaces(Exception):
    """This machine does not let its users make namespaces, or has no util-linux."""


class Mounts:
    """A mount namespace; a context manager at whose end everything in it is gone."""

    def __init__(self, home: Path) -> None:
        """Disks are kept below `home`, an existing directory."""
        self._home = home
        self._keeper: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        # It ends when its input does, so it does not outlive a test that is killed.
        command = ["unshare", "--map-root-user", "--mount", "sh", "-c", "echo; exec cat"]
        try:
            self._keeper = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603
        except FileNotFoundError:
            raise NoNamespaces("there is no unshare") from None
        assert self._keeper.stdout is not None
        if not self._keeper.stdout.readline():
            self.__exit__(None, None, None)
            raise NoNamespaces("unshare --map-root-user --mount is refused")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._keeper is not None:
            self._keeper.communicate()

    @property
    def prefix(self) -> tuple[str, ...]:
        """What a command is started with to be inside: it enters, and becomes the command."""
        assert self._keeper is not None, "not entered"
        return ("nsenter", f"--target={self._keeper.pid}", "--user", "--mount", "--preserve-credentials", "--")

    def run(self, *command: object) -> str:
        """What a command says. Raises CalledProcessError."""
        return subprocess.run(  # noqa: S603 - what is run is the test's choice
            [*self.prefix, *map(str, command)], check=True, capture_output=True, text=True, timeout=MOUNT_MAX_SECONDS
        ).stdout

    def make_disk(self, name: str, size_bytes: int) -> None:
        """A new, empty disk."""
        place = self._disk(name)
        place.mkdir()
        self.run("mount", "-t", "tmpfs", "-o", f"size={size_bytes},mode=0700", f"disk-{name}", place)

    def insert(self, name: str, place: Path) -> None:
        """Mount a disk at `place`, an existing directory."""
        self.run("mount", "--bind", self._disk(name), place)

    def pull(self, place: Path) -> None:
        """Take away what is mounted at `place`."""
        self.run("umount", "--lazy", place)

    def _disk(self, name: str) -> Path:
        return self._home / f"disk-{name}"
