"""What somebody may have meant who asked for an object that is not there."""

import difflib

from holdfast.cli.client import listing
from holdfast.cli.client.address import Remote
from holdfast.cli.client.connection import Connection
from holdfast.cli.client.failures import NoSuchBucket
from holdfast.cli.client.listing import Folder
from holdfast.core.errors import HoldfastError, NotFound

# Names beside it that are looked at: a page.
_LOOKED_AT_MAX_COUNT = 1000


def missing(connection: Connection, remote: Remote, error: NotFound) -> NotFound:
    """The error, with the nearest names."""
    if isinstance(error, NoSuchBucket):
        return error
    folder = remote.key.rstrip("/").rpartition("/")[0]
    prefix = f"{folder}/" if folder else ""
    names: list[str] = []
    try:
        for one in listing.level(connection, remote.bucket, prefix):
            names.append(one.prefix if isinstance(one, Folder) else one.key)
            if len(names) >= _LOOKED_AT_MAX_COUNT:
                break
    except HoldfastError:
        return error
    if remote.key + "/" in names:
        return NotFound(f"{remote} is a folder: --recursive takes what is in it")
    close = difflib.get_close_matches(remote.key, names, n=3, cutoff=0.6)
    if not close:
        return NotFound(f"{error}: `holdfast ls {Remote(remote.bucket, prefix)}` shows what is there")
    return NotFound(f"{error}: did you mean {' or '.join(str(Remote(remote.bucket, key)) for key in close)}?")
