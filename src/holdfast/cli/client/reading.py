"""`cat`, and `get` to standard output: bytes in their order, whatever happens to connections, checked at the end.

What was written cannot be taken back: when the check at the end fails, the command fails, and says so.
"""

import os
from dataclasses import dataclass

from holdfast.cli.client import digests, listing
from holdfast.cli.client.address import Remote
from holdfast.cli.client.connection import Connection
from holdfast.cli.client.digests import etag_of
from holdfast.cli.client.download import Source
from holdfast.cli.client.nearest import missing
from holdfast.core.errors import InvalidRequest, NotFound

# Two numbers of 64 bits.
_SPAN_MAX_CHARS = 41


@dataclass(frozen=True, slots=True)
class Span:
    """Which bytes: from `first` to `last`, or the last `tail`. Without any, all."""

    first: int = 0
    last: int | None = None
    tail: int | None = None

    @classmethod
    def of(cls, text: str) -> "Span":
        """FIRST-LAST, both counted from 0 and inclusive; FIRST- to the end. Raises InvalidRequest."""
        first, dash, last = text.partition("-")
        if (
            len(text) <= _SPAN_MAX_CHARS
            and dash
            and first.isdecimal()
            and (not last or (last.isdecimal() and int(last) >= int(first)))
        ):
            return cls(int(first), int(last) if last else None)
        raise InvalidRequest(f"--range {text!r} is not FIRST-LAST, such as 0-99, or FIRST-")

    def within(self, size: int) -> tuple[int, int]:
        """[start, end) of an object so long."""
        if self.tail is not None:
            return max(0, size - self.tail), size
        return min(self.first, size), size if self.last is None else min(self.last + 1, size)


def write_out(connection: Connection, remote: Remote, descriptor: int, span: Span, version_id: str = "") -> int:
    """Write the bytes to an open file; how many. Raises BrokenPipeError when nobody reads them."""
    if not remote.key:
        raise InvalidRequest(f"{remote} is a bucket: name an object in it")
    try:
        head = listing.named(connection, remote, version_id)
    except NotFound as error:
        raise missing(connection, remote, error) from error
    size = int(head["ContentLength"])
    start, end = span.within(size)
    expected = digests.expected_of(head) if (start, end) == (0, size) else None
    running = expected.start() if expected is not None else None
    source = Source(connection, remote, etag_of(head), version_id, size)
    for piece in source.read(start, end):
        if running is not None:
            running.update(piece)
        view = memoryview(piece)
        while view:
            view = view[os.write(descriptor, view) :]
    if expected is not None and running is not None:
        expected.check(running, f"{remote}, which was written out already,")
    return end - start
