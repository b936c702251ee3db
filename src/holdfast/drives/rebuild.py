"""An index made again, from what the segments of the drive hold."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from holdfast.core.disk import Disk
from holdfast.core.ids import DriveId
from holdfast.drives.environment import Environment
from holdfast.drives.rows import Update
from holdfast.drives.segments import (
    FIRST_GENERATION,
    Contents,
    Entry,
    is_ours,
    read_contents,
    segment_of,
    segment_path,
)

# Sequences that writers had reserved, but not yet written, when an index was lost stay below the new one's clock.
CLOCK_GAP_AFTER_REBUILD = 1 << 20

# Records applied in one transaction: bounds its dirty pages.
_ENTRIES_PER_COMMIT = 20_000


def fill(environment: Environment, segments: Iterable[tuple[bytes, Contents]]) -> None:
    """Put what `segments` hold into an empty environment. Raises StaleIndex, Full, and what reading them raises."""
    highest = 0
    for segment, contents in segments:
        entries = contents.entries
        for first in range(0, len(entries), _ENTRIES_PER_COMMIT):
            environment.write(partial(_apply_all, entries=entries[first : first + _ENTRIES_PER_COMMIT]))
        environment.write(partial(_end, segment=segment, contents=contents))
        highest = max(highest, max((entry.sequence for entry in entries), default=0))
    environment.write(lambda update, _: update.drop_needless_tombstones())
    environment.write(lambda update, _: update.set_clock(highest + CLOCK_GAP_AFTER_REBUILD))


def read_segments(disk: Disk, directory: Path, drive: DriveId) -> Iterator[tuple[bytes, Contents]]:
    """Every segment of the drive in `directory` with its records, read back from the files. Raises OSError, and
    InvalidRequest for one that a newer version wrote."""
    for name in disk.list_directory(directory):
        segment = segment_of(name)
        if segment is None:
            continue
        try:
            file = disk.open(segment_path(directory, segment))
        except FileNotFoundError:
            continue
        try:
            if is_ours(file, segment, drive):
                yield segment, read_contents(file, segment, FIRST_GENERATION)
        finally:
            file.close()


def _apply_all(update: Update, _: int, entries: Sequence[Entry]) -> None:
    for entry in entries:
        update.apply(entry, keep_tombstones=True)


def _end(update: Update, _: int, segment: bytes, contents: Contents) -> None:
    update.set_end(segment, contents.end, closed=contents.closed)
