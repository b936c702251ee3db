"""From a file, or standard input, to an object: whole if it is small, else in parts of which none is sent twice.

Rules.

- Every request carries a CRC64NVME (Content-MD5 where the configuration says `when_required`), and the answer must
  confirm it, or have the right MD5 as its ETag.
- The upload's id is noted on this machine before its first part is sent. After an interruption the same command lists
  the parts that arrived, compares each with the file by checksum or MD5, and sends the others.
- A file that changes while it is read is not uploaded: the upload is aborted, and nothing becomes visible.
"""

import mimetypes
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from holdfast.cli.client import digests
from holdfast.cli.client.address import Remote
from holdfast.cli.client.connection import Connection
from holdfast.cli.client.crew import Crew
from holdfast.cli.client.failures import NoSuchUpload
from holdfast.cli.client.landing import local_error
from holdfast.cli.client.quick import SMALL_MAX_BYTES
from holdfast.cli.client.unfinished import Begun, Note, note_of
from holdfast.core.crc import combine_crc64nvme, crc64nvme
from holdfast.core.errors import Corrupt, HoldfastError, InvalidRequest, NotFound, PreconditionFailed
from holdfast.core.limits import MIB, OBJECT_MAX_BYTES, PARTS_MAX_COUNT

# A part in memory for each job. Smaller ones cost requests, larger ones cost more to send again.
PART_BYTES = 8 * MIB

# Up to here one request is quicker than three, and sending it again costs little.
WHOLE_MAX_BYTES = 16 * MIB

# Of a stream nobody knows the length: parts grow as it goes on, so that their number never ends before it does.
STREAM_PARTS_PER_SIZE = 1000

# The stream's parts grow up to this; ten thousand of them are far more than a terabyte.
STREAM_PART_MAX_BYTES = 256 * MIB


@dataclass(frozen=True, slots=True)
class Uploaded:
    """What came of it."""

    size: int
    etag: str
    resumed_bytes: int = 0
    """Those that an earlier run had sent."""


@dataclass(frozen=True, slots=True)
class Uploader:
    """How files are put. `advance` is told of bytes as they are done; called from several threads."""

    connection: Connection
    crew: Crew
    notes: Path
    """The directory of unfinished uploads."""
    advance: Callable[[int], None]
    headers: dict[str, Any] = field(default_factory=dict)
    """Parameters of every object: ContentType, Metadata, IfNoneMatch."""

    def put_file(self, path: Path, remote: Remote) -> Uploaded:
        """Raises our errors; of the file's own: NotFound, AccessDenied, InvalidRequest (it is no file)."""
        with _opened(path) as (descriptor, status):
            if status.st_size > WHOLE_MAX_BYTES:
                return self._in_parts(path, descriptor, status, remote)
            data = _read(path, descriptor, 0, status.st_size)
            _check_unchanged(path, descriptor, status)
            return self._whole(data, remote, self._headers_for(path.name, remote))

    def put_stream(self, stream: BinaryIO, remote: Remote) -> Uploaded:
        """Whatever comes until the end of the stream. Interrupted, nothing of it is kept."""
        first = _read_stream(stream, WHOLE_MAX_BYTES)
        headers = self._headers_for("", remote)
        if len(first) < WHOLE_MAX_BYTES:
            return self._whole(first, remote, headers)
        upload = self._create(remote, headers)
        try:
            parts, size = self._send_stream(stream, first, remote, upload)
            return Uploaded(size, self._complete(remote, upload, parts, size))
        except BaseException:
            self._abort(remote, upload)
            raise

    def _headers_for(self, name: str, remote: Remote) -> dict[str, Any]:
        """As every tool has it, the type goes by the name."""
        guessed = mimetypes.guess_type(name or remote.name)[0]
        return {"ContentType": guessed, **self.headers} if guessed else dict(self.headers)

    def _whole(self, data: bytes, remote: Remote, headers: dict[str, Any]) -> Uploaded:
        crc = crc64nvme(data)
        proof = self._proof(data, crc)
        put = self.connection.call_small if len(data) <= SMALL_MAX_BYTES else self.connection.call
        answer = put("put_object", remote.bucket, remote.key, Body=data, **proof, **headers)
        digests.check_sent(answer, data, crc, str(remote))
        self.advance(len(data))
        return Uploaded(len(data), digests.etag_of(answer))

    def _proof(self, data: bytes, crc: int) -> dict[str, str]:
        if self.connection.sends_checksums:
            return {"ChecksumCRC64NVME": digests.as_text(crc)}
        return {"ContentMD5": digests.md5_text(data)}

    def _in_parts(self, path: Path, descriptor: int, status: os.stat_result, remote: Remote) -> Uploaded:
        if status.st_size > OBJECT_MAX_BYTES:
            raise InvalidRequest(f"{path}: larger than S3's largest object, 50 TiB")
        headers = self._headers_for(path.name, remote)
        # A condition is of the completion, and no part of what is gone on with.
        kept = {name: value for name, value in headers.items() if name != "IfNoneMatch"}
        size, source = status.st_size, str(path.absolute())
        wanted = Begun("", size, status.st_mtime_ns, status.st_ino, part_bytes_for(size), kept, source)
        with note_of(self.notes, self.connection.endpoint, remote.bucket, remote.key, source) as note:
            begun, there = self._take_up(remote, note, wanted)
            if begun is None:
                begun = replace(wanted, upload_id=self._create(remote, kept))
                note.write(begun)
            parts, resumed = self._send_parts(path, descriptor, remote, begun, there)
            try:
                _check_unchanged(path, descriptor, status)
            except PreconditionFailed:
                self._abort(remote, begun.upload_id)
                note.forget()
                raise
            etag = self._complete(remote, begun.upload_id, parts, status.st_size)
            note.forget()
        return Uploaded(status.st_size, etag, resumed)

    def _take_up(self, remote: Remote, note: Note, wanted: Begun) -> tuple[Begun | None, dict[int, dict[str, Any]]]:
        """The upload of an earlier run, with the parts that the server has of it by number; None when there is none."""
        begun = note.read()
        if begun is None:
            return None, {}
        if not begun.is_of(wanted):
            self._abort(remote, begun.upload_id)
            return None, {}
        try:
            pages = self.connection.pages("list_parts", remote.bucket, Key=remote.key, UploadId=begun.upload_id)
            return begun, {part["PartNumber"]: part for page in pages for part in page.get("Parts", ())}
        except NotFound:
            return None, {}

    def _create(self, remote: Remote, headers: dict[str, Any]) -> str:
        checksum = (
            {"ChecksumAlgorithm": "CRC64NVME", "ChecksumType": "FULL_OBJECT"} if self.connection.sends_checksums else {}
        )
        created = {name: value for name, value in headers.items() if name != "IfNoneMatch"}
        answer = self.connection.call("create_multipart_upload", remote.bucket, remote.key, **checksum, **created)
        return str(answer["UploadId"])

    def _send_parts(
        self, path: Path, descriptor: int, remote: Remote, begun: Begun, there: dict[int, dict[str, Any]]
    ) -> tuple[list["_Part"], int]:
        """Every part that is not there; all of them in order, and how many bytes of them were there."""
        resumed = 0

        def send(number: int) -> tuple[_Part, bool]:
            self.crew.check()
            offset = (number - 1) * begun.part_bytes
            data = _read(path, descriptor, offset, min(begun.part_bytes, begun.size - offset))
            crc = crc64nvme(data)
            if number in there and _is_same(there[number], data, crc):
                self.advance(len(data))
                return _Part(number, digests.etag_of(there[number]), crc, len(data)), True
            return self._send_part(remote, begun.upload_id, number, data, crc), False

        parts = []
        for _, (part, was_there) in self.crew.parts(range(1, -(-begun.size // begun.part_bytes) + 1), send):
            parts.append(part)
            resumed += part.length if was_there else 0
        return sorted(parts, key=lambda part: part.number), resumed

    def _send_stream(self, stream: BinaryIO, first: bytes, remote: Remote, upload: str) -> tuple[list["_Part"], int]:
        def pieces() -> Iterator[tuple[int, bytes]]:
            yield 1, first
            for number in range(2, PARTS_MAX_COUNT + 1):
                doublings = (number - 1) // STREAM_PARTS_PER_SIZE
                data = _read_stream(stream, min(PART_BYTES << doublings, STREAM_PART_MAX_BYTES))
                if not data:
                    return
                yield number, data
            if stream.read(1):
                raise InvalidRequest("standard input is longer than an object of 10,000 parts can be")

        def send(piece: tuple[int, bytes]) -> _Part:
            number, data = piece
            return self._send_part(remote, upload, number, data, crc64nvme(data))

        parts = [part for _, part in self.crew.parts(pieces(), send)]
        return sorted(parts, key=lambda part: part.number), sum(part.length for part in parts)

    def _send_part(self, remote: Remote, upload: str, number: int, data: bytes, crc: int) -> "_Part":
        answer = self.connection.call(
            "upload_part", remote.bucket, remote.key,
            UploadId=upload, PartNumber=number, Body=data, **self._proof(data, crc),
        )  # fmt: skip
        digests.check_sent(answer, data, crc, f"{remote}, part {number}")
        self.advance(len(data))
        return _Part(number, digests.etag_of(answer), crc, len(data))

    def _complete(self, remote: Remote, upload: str, parts: list["_Part"], size: int) -> str:
        crc = parts[0].crc
        for part in parts[1:]:
            crc = combine_crc64nvme(crc, part.crc, part.length)
        proof: dict[str, Any] = {}
        if self.connection.sends_checksums:
            proof = {"ChecksumCRC64NVME": digests.as_text(crc), "ChecksumType": "FULL_OBJECT", "MpuObjectSize": size}
        if "IfNoneMatch" in self.headers:
            proof["IfNoneMatch"] = self.headers["IfNoneMatch"]
        listed = [part.as_document(with_checksum=self.connection.sends_checksums) for part in parts]
        try:
            answer = self.connection.call(
                "complete_multipart_upload", remote.bucket, remote.key,
                UploadId=upload, MultipartUpload={"Parts": listed}, **proof,
            )  # fmt: skip
        except NoSuchUpload:
            # The answer to an earlier attempt was lost on its way: whether it succeeded shows in what is there now.
            answer = self.connection.call("head_object", remote.bucket, remote.key, ChecksumMode="ENABLED")
            if answer.get("ContentLength") != size or answer.get("ChecksumCRC64NVME") != digests.as_text(crc):
                raise
        confirmed = answer.get("ChecksumCRC64NVME")
        if confirmed is not None and answer.get("ChecksumType") != "COMPOSITE" and confirmed != digests.as_text(crc):
            raise Corrupt(f"{remote}: the server put other bytes together than were sent (CRC64NVME {confirmed})")
        return digests.etag_of(answer)

    def _abort(self, remote: Remote, upload: str) -> None:
        try:
            self.connection.call("abort_multipart_upload", remote.bucket, remote.key, UploadId=upload)
        except HoldfastError:
            pass  # what led here is what is told; the server forgets abandoned uploads when it is told to


@dataclass(frozen=True, slots=True)
class _Part:
    number: int
    etag: str
    crc: int
    length: int

    def as_document(self, *, with_checksum: bool) -> dict[str, Any]:
        checksum = {"ChecksumCRC64NVME": digests.as_text(self.crc)} if with_checksum else {}
        return {"PartNumber": self.number, "ETag": f'"{self.etag}"', **checksum}


def part_bytes_for(size: int) -> int:
    """The length of all parts but the last: whole mebibytes, and few enough parts."""
    return max(PART_BYTES, -(-size // (PARTS_MAX_COUNT * MIB)) * MIB)


def _is_same(part: dict[str, Any], data: bytes, crc: int) -> bool:
    """Whether a part that the server lists is this one."""
    if part.get("Size") != len(data):
        return False
    if "ChecksumCRC64NVME" in part:
        return bool(part["ChecksumCRC64NVME"] == digests.as_text(crc))
    return digests.etag_of(part) == digests.md5_hex(data)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[int, os.stat_result]]:
    try:
        # Not blocking: a pipe is opened and refused, instead of waiting for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise local_error(error, path) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise InvalidRequest(f"{path} is no file: of a directory, --recursive takes what is in it")
        yield descriptor, status
    finally:
        os.close(descriptor)


def _read(path: Path, descriptor: int, offset: int, length: int) -> bytes:
    """Exactly so much. Raises PreconditionFailed when the file is shorter."""
    try:
        data = os.pread(descriptor, length, offset)
        while len(data) < length:
            more = os.pread(descriptor, length - len(data), offset + len(data))
            if not more:
                raise PreconditionFailed(f"{path} became shorter while it was read: nothing was stored")
            data += more
    except OSError as error:
        raise local_error(error, path) from error
    return data


def _check_unchanged(path: Path, descriptor: int, before: os.stat_result) -> None:
    now = os.fstat(descriptor)
    if (now.st_size, now.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise PreconditionFailed(
            f"{path} was changed while it was read: nothing was stored; give the same command again"
        )


def _read_stream(stream: BinaryIO, length: int) -> bytes:
    """So much, or what is left."""
    pieces, missing = [], length
    while missing and (piece := stream.read(missing)):
        pieces.append(piece)
        missing -= len(piece)
    return b"".join(pieces)
