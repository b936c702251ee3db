"""Segments whose process died: closed by whoever comes across them.

Rules. The lock tells the dead from the living. What the index does not know of was never acknowledged, and later calls
may have been answered as if it had not happened: the footer leaves it out and is written over it. Everything before
was synced and indexed.
"""

from pathlib import Path

from holdfast.core.disk import Disk, File
from holdfast.core.errors import Full
from holdfast.core.ids import DriveId
from holdfast.drives.index import Index
from holdfast.drives.records import PAGE_BYTES, aligned
from holdfast.drives.reserve import NO_SPACE
from holdfast.drives.segments import (
    SEGMENTS_NAME,
    encode_entry,
    encode_footer,
    is_ours,
    read_contents,
    segment_of,
    segment_path,
)
from holdfast.drives.writer import write_footer


def adopt_segments(directory: Path, drive: DriveId, disk: Disk, index: Index) -> int:
    """Close every segment that is open and that nobody holds; how many. Blocks. Raises OSError, NodeDown, Full."""
    adopted = 0
    books = index.books()
    for name in disk.list_directory(directory / SEGMENTS_NAME):
        segment = segment_of(name)
        if segment is None or (segment in books and books[segment].closed):
            continue
        path = segment_path(directory / SEGMENTS_NAME, segment)
        try:
            file = disk.open(path)
        except FileNotFoundError:
            continue
        try:
            file.lock(exclusive=True)
            if file.is_at(path) and is_ours(file, segment, drive):
                _adopt(file, path, segment, disk, index)
                adopted += 1
        except BlockingIOError:
            continue
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            raise Full(f"no space left to close a segment in {directory}") from error
        finally:
            file.close()
    return adopted


def _adopt(file: File, path: Path, segment: bytes, disk: Disk, index: Index) -> None:
    contents = read_contents(file, segment)
    # Read only now, under the lock: its owner may have gone on until it let go.
    known = index.books().get(segment)
    end = max(PAGE_BYTES, known.end if known is not None else 0)
    if known is not None and known.closed:
        return
    if not contents.closed:
        entries = [entry for entry in contents.entries if entry.place.offset < end]
        if not entries and end == PAGE_BYTES:
            disk.unlink(path)
            disk.sync_directory(path.parent)
            index.write(lambda update, _: update.forget_segment(segment, ()))
            return
        end = aligned(end, PAGE_BYTES)
        footer = encode_footer(segment, end, len(entries), b"".join(map(encode_entry, entries)))
        write_footer(file, end, footer)
    else:
        end = contents.end
    index.write(lambda update, _: update.set_end(segment, end, closed=True))
