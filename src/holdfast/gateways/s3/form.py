"""multipart/form-data as it arrives: the fields before the file, then the file as a stream. No I/O but the source's.

Rules. What stands before the file is bounded. A field that is there twice is refused, so that what a policy was checked
against is what is used. A form that ends before its file has ended raises; it never looks like a short file.

RFC 7578.
"""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass

from holdfast.core.ids import Buffer
from holdfast.core.limits import KIB
from holdfast.gateways.s3.errors import S3Error
from holdfast.objects.errors import IncompleteBody

# S3 takes 20 KB before the file, of a policy of at most 20 KB; this is that with every byte of the policy in base64.
FIELDS_MAX_BYTES = 64 * KIB
FIELDS_MAX_COUNT = 200
_TAIL_MAX_BYTES = 64 * KIB

_BOUNDARY = re.compile(
    r'multipart/form-data\s*;(?:.*;)?\s*boundary=(?:"([^"\r\n]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE
)
_NAME = re.compile(r';\s*name=(?:"([^"]*)"|([^\s;"]+))', re.IGNORECASE)
_FILENAME = re.compile(r';\s*filename=(?:"([^"]*)"|([^\s;"]+))', re.IGNORECASE)


def boundary_of(content_type: str) -> bytes | None:
    """The boundary that a Content-Type names; None when it is not that of a form."""
    match = _BOUNDARY.match(content_type.strip())
    return (match[1] or match[2]).encode("latin-1") if match is not None else None


@dataclass(frozen=True, slots=True)
class FormHead:
    """What stands before the file's bytes."""

    fields: dict[str, str]
    """By name in lower case."""
    filename: str


class Form:
    """Reads one form. `head` first, then `file` to its end."""

    def __init__(self, chunks: AsyncIterator[Buffer], boundary: bytes) -> None:
        self._chunks = chunks
        self._delimiter = b"\r\n--" + boundary
        # The first delimiter has no line before it.
        self._buffer = bytearray(b"\r\n")
        self._taken = 0

    async def head(self) -> FormHead:
        """The fields up to the file. Raises S3Error, IncompleteBody."""
        fields: dict[str, str] = {}
        if await self._until(self._delimiter):
            raise malformed()
        while True:
            end = await self._exactly(2)
            if end == b"--":
                raise S3Error(
                    "IncorrectNumberOfFilesInPostRequest", "POST requires exactly one file upload per request."
                )
            if end != b"\r\n":
                raise malformed()
            head = (await self._until(b"\r\n\r\n")).decode("utf-8", "surrogateescape")
            name, filename = _disposition(head)
            if name == "file":
                return FormHead(fields, filename)
            try:
                value = (await self._until(self._delimiter)).decode()
            except UnicodeDecodeError:
                raise malformed() from None
            if name in fields or len(fields) == FIELDS_MAX_COUNT:
                raise S3Error("InvalidArgument", f"The form has too many fields named {name}.")
            fields[name] = value

    async def file(self) -> AsyncIterator[bytes]:
        """The file's bytes. What follows the file is read and thrown away, within bounds."""
        keep = len(self._delimiter) - 1
        while (found := self._buffer.find(self._delimiter)) < 0:
            if len(self._buffer) > keep:
                piece = bytes(memoryview(self._buffer)[: len(self._buffer) - keep])
                del self._buffer[: len(piece)]
                yield piece
            await self._more()
        if found:
            yield bytes(memoryview(self._buffer)[:found])
        left = len(self._buffer) - found
        async for chunk in self._chunks:
            left += len(chunk)
            if left > _TAIL_MAX_BYTES:
                raise malformed()

    async def _until(self, mark: bytes) -> bytes:
        """The bytes before a mark, which is taken as well."""
        start = 0
        while (found := self._buffer.find(mark, start)) < 0:
            start = max(0, len(self._buffer) - len(mark) + 1)
            if self._taken + len(self._buffer) > FIELDS_MAX_BYTES:
                raise _too_long()
            await self._more()
        taken = bytes(memoryview(self._buffer)[:found])
        del self._buffer[: found + len(mark)]
        self._taken += found + len(mark)
        if self._taken > FIELDS_MAX_BYTES:
            raise _too_long()
        return taken

    async def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            await self._more()
        taken = bytes(memoryview(self._buffer)[:size])
        del self._buffer[:size]
        return taken

    async def _more(self) -> None:
        async for chunk in self._chunks:
            self._buffer += chunk
            return
        raise IncompleteBody("the form ends before its file")


def _disposition(head: str) -> tuple[str, str]:
    """A part's name in lower case and its file's name, out of its headers."""
    for line in head.split("\r\n"):
        header, _, value = line.partition(":")
        if header.strip().lower() == "content-disposition" and value.strip().lower().startswith("form-data"):
            name, filename = _NAME.search(value), _FILENAME.search(value)
            if name is not None:
                found = "" if filename is None else filename[1] or filename[2] or ""
                return (name[1] or name[2] or "").lower(), found.replace("\\", "/").rpartition("/")[2]
    raise malformed()


def malformed() -> S3Error:
    return S3Error("MalformedPOSTRequest", "The body of your POST request is not well-formed multipart/form-data.")


def _too_long() -> S3Error:
    return S3Error(
        "MaxPostPreDataLengthExceededError",
        "Your POST request fields preceding the upload file were too large.",
    )
