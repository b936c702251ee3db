"""What a mirror must do: two sides in the order of keys, put beside each other.

Pure: no I/O but what the sides bring along. A side whose order is broken ends the comparison, since what is missing
could not be told from what is yet to come, and something might be deleted for it.

Same means: the same size, and
- file to object: the object is younger than the file, by the server's clock; else their MD5s agree;
- object to file: the file has the object's time, which a fetched one is given; else their MD5s agree;
- object to object: the same ETag; or the target is younger, and put together of parts in another way.
With `by_content` time says nothing, and only MD5s do. Where an ETag is no MD5 of known parts, it is not the same.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from pathlib import Path

from holdfast.core.errors import RemoteProtocolError

# S3 tells times in whole seconds, and a file may change within the second in which it was uploaded.
TIME_STEP = timedelta(seconds=2)


@dataclass(frozen=True, slots=True)
class Item:
    """A file or an object, by its name below the root of its side."""

    relative: str
    size: int
    modified: datetime
    etag: str = ""
    """Of an object."""
    path: Path | None = None
    """Of a file."""


class Step(Enum):
    NEW = "new"
    CHANGED = "changed"
    SAME = "same"
    EXTRA = "extra"
    """In the target only."""


@dataclass(frozen=True, slots=True)
class Action:
    step: Step
    item: Item
    """The source's; of EXTRA the target's."""


def compare(source: Iterable[Item], target: Iterable[Item], is_same: Callable[[Item, Item], bool]) -> Iterator[Action]:
    """Every name of either side, once. Raises RemoteProtocolError when a side is out of order."""
    left, right = _ordered(source), _ordered(target)
    one, other = next(left, None), next(right, None)
    while one is not None or other is not None:
        if other is None or (one is not None and _key(one) < _key(other)):
            assert one is not None
            yield Action(Step.NEW, one)
            one = next(left, None)
        elif one is None or _key(other) < _key(one):
            yield Action(Step.EXTRA, other)
            other = next(right, None)
        else:
            yield Action(Step.SAME if is_same(one, other) else Step.CHANGED, one)
            one, other = next(left, None), next(right, None)


def _key(item: Item) -> bytes:
    return item.relative.encode()


def _ordered(items: Iterable[Item]) -> Iterator[Item]:
    last: bytes | None = None
    for item in items:
        if last is not None and _key(item) <= last:
            raise RemoteProtocolError(
                f"the listing is not in the order of keys ({item.relative!r} comes too late): a mirror of it "
                "would not be safe"
            )
        last = _key(item)
        yield item


@dataclass(frozen=True, slots=True)
class Comparison:
    """When two items of one name are the same."""

    md5_agrees: Callable[[Item, str], bool]
    """Reads a file and says whether it has this ETag."""
    skew: timedelta = timedelta(0)
    """How far the server's clock is ahead of this machine's."""
    by_content: bool = False

    def is_same(self, source: Item, target: Item) -> bool:
        if source.size != target.size:
            return False
        if source.path is not None:
            return self._is_uploaded(source, target)
        if target.path is not None:
            return self._is_fetched(source, target)
        return self._is_copied(source, target)

    def _is_uploaded(self, source: Item, target: Item) -> bool:
        if not self.by_content and source.modified + self.skew + TIME_STEP < target.modified:
            return True
        return self.md5_agrees(source, target.etag)

    def _is_fetched(self, source: Item, target: Item) -> bool:
        if not self.by_content and target.modified == source.modified.replace(microsecond=0):
            return True
        return self.md5_agrees(target, source.etag)

    def _is_copied(self, source: Item, target: Item) -> bool:
        if source.etag == target.etag:
            return True
        in_parts = "-" in source.etag or "-" in target.etag
        return in_parts and not self.by_content and target.modified > source.modified + TIME_STEP
