"""Where things are: `s3://BUCKET/KEY`, a path of this machine, or `-` for standard input or output.

Rules. A command that takes both kinds of place wants `s3://` in front of the remote one, so that a file is never
taken for a bucket. One whose argument can only be remote takes BUCKET/KEY too. Everything behind the first slash is
the key, byte for byte: `s3://b//a` is the key "/a". A key that ends in a slash, or none at all, names a folder.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from holdfast.core.errors import InvalidName

SCHEME = "s3://"

# What some server takes for a bucket's name; the server says whether it does. "." and ".." are paths.
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")


@dataclass(frozen=True, slots=True)
class Remote:
    """An object, a folder, or with no key a bucket."""

    bucket: str
    key: str = ""

    def __str__(self) -> str:
        return f"{SCHEME}{self.bucket}/{self.key}" if self.key else f"{SCHEME}{self.bucket}"

    @property
    def is_folder(self) -> bool:
        """Whether it is spelled as one."""
        return not self.key or self.key.endswith("/")

    @property
    def prefix(self) -> str:
        """What the keys inside of it begin with, when it is taken for a folder: s3://b/a never means "ab"."""
        return self.key if self.is_folder else self.key + "/"

    @property
    def name(self) -> str:
        """The last component of the key."""
        return self.key.rstrip("/").rpartition("/")[2]

    def at(self, relative: str) -> "Remote":
        """The object of that name inside of this folder."""
        return Remote(self.bucket, self.prefix + relative)


@dataclass(frozen=True, slots=True)
class Local:
    """A path of this machine."""

    path: Path
    is_folder: bool = False
    """Whether it is spelled as a directory: with a slash at the end, or as "." or ".."."""

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True)
class Stream:
    """Standard input or output."""

    def __str__(self) -> str:
        return "-"


Place = Remote | Local | Stream


def parse_remote(text: str) -> Remote:
    """What can only be remote: s3://BUCKET[/KEY] or BUCKET[/KEY]. Raises InvalidName."""
    bucket, _, key = text.removeprefix(SCHEME).partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise InvalidName(f"{text!r} names no bucket: write s3://BUCKET/KEY")
    return Remote(bucket, key)


def parse_place(text: str) -> Place:
    """Either kind, or "-". Raises InvalidName."""
    if text == "-":
        return Stream()
    if text.startswith(SCHEME):
        return parse_remote(text)
    if not text or "\0" in text:
        raise InvalidName("an empty path: write a file, a directory, or s3://BUCKET/KEY")
    return Local(Path(text), text.endswith("/") or Path(text).name in ("", ".."))
