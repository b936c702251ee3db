"""multipart/form-data as it arrives: find the part of a name, and hand on its bytes as a stream. RFC 7578.

Rules. What stands around the part is bounded. A form that ends before its part has ended, or before the form has,
raises: it never looks like a short file.
"""

import re
from collections.abc import AsyncIterator

from holdfast.core.limits import KIB
from holdfast.gateways.air.errors import AirError
from holdfast.objects.errors import IncompleteBody

# Heads of parts, and whole parts of other names, before and behind the one that is wanted.
AROUND_MAX_BYTES = 64 * KIB

# RFC 2046.
_BOUNDARY_MAX_CHARS = 70

_PARAMETER = re.compile(r""";\s*([!#$%&'*+.^_`|~0-9a-z-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;"]*))""", re.IGNORECASE)


def parameters(value: str) -> dict[str, str]:
    """What follows a header's value: `; name=value`, names in lower case."""
    found = {}
    for name, quoted, plain in _PARAMETER.findall(value):
        found[name.lower()] = re.sub(r"\\(.)", r"\1", quoted) if quoted else plain
    return found


def boundary_of(content_type: str) -> bytes | None:
    """The boundary that a Content-Type names; None when it is not that of a form."""
    if content_type.partition(";")[0].strip().lower() != "multipart/form-data":
        return None
    boundary = parameters(content_type).get("boundary", "")
    return boundary.encode("latin-1") if 0 < len(boundary) <= _BOUNDARY_MAX_CHARS else None


class Form:
    """Reads one form: `open` first, then `file` to its end."""

    def __init__(self, chunks: AsyncIterator[bytes], boundary: bytes) -> None:
        self._chunks = chunks
        self._delimiter = b"\r\n--" + boundary
        # The first delimiter has no line before it.
        self._buffer = b"\r\n"
        self._around = 0
        self.started = False
        """Bytes of the file were asked for: it cannot be read again."""

    async def open(self, name: str) -> str:
        """Go to the part of that name; its content type, or "". Raises AirError, IncompleteBody."""
        await self._skip()
        while True:
            line = await self._until(b"\r\n")
            if line.startswith(b"--"):
                raise AirError(400, f"the form has no field `{name}`")
            if line.strip(b" \t"):
                raise _malformed()
            headers: dict[str, str] = {}
            while line := await self._until(b"\r\n"):
                field, _, value = line.decode("latin-1").partition(":")
                headers[field.strip().lower()] = value.strip()
            if parameters(headers.get("content-disposition", "")).get("name") == name:
                return headers.get("content-type", "")
            await self._skip()

    async def file(self) -> AsyncIterator[memoryview]:
        """The part's bytes; then the rest of the form is read to its end."""
        self.started = True
        async for piece in self._part():
            yield piece
        self._count(len(self._buffer))
        # The last delimiter ends in "--"; what follows it means nothing.
        ending = self._buffer
        async for chunk in self._chunks:
            self._count(len(chunk))
            ending += chunk
        if not ending.startswith(b"--") and self._delimiter + b"--" not in ending:
            raise IncompleteBody("the form has no end")

    async def _part(self) -> AsyncIterator[memoryview]:
        """Bytes up to the next delimiter, which is taken as well.

        A chunk is searched where it lies; only its last bytes, where a delimiter may begin, are joined with the next.
        """
        keep = len(self._delimiter) - 1
        while (found := self._buffer.find(self._delimiter)) < 0:
            ready = len(self._buffer) - keep
            if ready > 0:
                yield memoryview(self._buffer)[:ready]
                self._buffer = self._buffer[ready:]
            chunk = await self._next()
            if len(chunk) > keep and self._delimiter not in self._buffer + chunk[:keep]:
                yield memoryview(self._buffer)
                self._buffer = chunk
            else:
                self._buffer += chunk
        if found:
            yield memoryview(self._buffer)[:found]
        self._buffer = self._buffer[found + len(self._delimiter) :]

    async def _skip(self) -> None:
        async for piece in self._part():
            self._count(len(piece))

    async def _until(self, mark: bytes) -> bytes:
        """The bytes before a mark, which is taken as well."""
        while (found := self._buffer.find(mark)) < 0:
            if len(self._buffer) > AROUND_MAX_BYTES:
                raise _too_long()
            self._buffer += await self._next()
        taken = self._buffer[:found]
        self._buffer = self._buffer[found + len(mark) :]
        self._count(found + len(mark))
        return taken

    def _count(self, size: int) -> None:
        self._around += size
        if self._around > AROUND_MAX_BYTES:
            raise _too_long()

    async def _next(self) -> bytes:
        async for chunk in self._chunks:
            return chunk
        raise IncompleteBody("the form has no end")


def _malformed() -> AirError:
    return AirError(400, "the body is not well-formed multipart/form-data")


def _too_long() -> AirError:
    return AirError(413, "too much stands around the file in the form")
