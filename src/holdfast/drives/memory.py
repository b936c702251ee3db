"""A drive in memory: for tests and the simulator, and the plainest reading of what `Drive` promises."""

import bisect
from collections.abc import Sequence

from holdfast.core.errors import Full, NodeDown, NotFound
from holdfast.core.ids import DriveId
from holdfast.core.ranges import ByteRange
from holdfast.drives.interface import DriveUsage, Fragment, FragmentInfo, FragmentKey, FragmentPart, whole_leaves
from holdfast.drives.limits import check_fragment_limits


class MemoryDrive:
    """Fragments in a dict. `capacity` bounds the bytes of their payloads."""

    def __init__(self, id: DriveId, *, capacity: int = 1 << 40) -> None:
        self._id = id
        self._capacity = capacity
        self._fragments: dict[FragmentKey, Fragment] = {}
        self._keys: list[FragmentKey] = []
        self._live = 0
        self._closed = False

    @property
    def id(self) -> DriveId:
        return self._id

    async def put(self, fragments: Sequence[Fragment]) -> None:
        self._check_open()
        for fragment in fragments:
            check_fragment_limits(fragment)
        added = sum(len(f.payload) for f in fragments if f.key not in self._fragments)
        if self._live + added > self._capacity:
            raise Full(f"the drive holds {self._live} of {self._capacity} bytes: delete something or add a drive")
        for fragment in fragments:
            key = fragment.key
            if key in self._fragments:
                self._live -= len(self._fragments[key].payload)
            else:
                bisect.insort(self._keys, key)
            payload = bytes(fragment.payload)
            self._live += len(payload)
            self._fragments[key] = Fragment(key, fragment.commitment, fragment.leaves, fragment.tag, payload)

    async def get(self, key: FragmentKey, range: ByteRange | None = None) -> FragmentPart:
        return self._part(key, range)

    def get_at_once(self, key: FragmentKey, into: memoryview | None = None) -> FragmentPart:
        return self._part(key, None)

    def get_here(self, key: FragmentKey, into: memoryview | None = None) -> FragmentPart:
        return self._part(key, None)

    def expect(self, key: FragmentKey) -> None:
        pass

    def _part(self, key: FragmentKey, range: ByteRange | None) -> FragmentPart:
        self._check_open()
        fragment = self._fragments.get(key)
        if fragment is None:
            raise NotFound(f"no fragment {key.index} of block {key.block.hex()}")
        length = len(fragment.payload)
        start, end = whole_leaves(range, length)
        data = memoryview(fragment.payload)[start:end]
        return FragmentPart(key, fragment.commitment, fragment.leaves, fragment.tag, length, start, data)

    async def has(self, keys: Sequence[FragmentKey]) -> list[bool]:
        self._check_open()
        return [key in self._fragments for key in keys]

    async def delete(self, keys: Sequence[FragmentKey]) -> None:
        self._check_open()
        for key in keys:
            fragment = self._fragments.pop(key, None)
            if fragment is not None:
                self._live -= len(fragment.payload)
                del self._keys[bisect.bisect_left(self._keys, key)]

    async def list(self, after: FragmentKey | None = None, limit: int = 1000) -> list[FragmentInfo]:
        self._check_open()
        first = 0 if after is None else bisect.bisect_right(self._keys, after)
        page = (self._fragments[key] for key in self._keys[first : first + limit])
        return [FragmentInfo(f.key, len(f.payload), f.tag) for f in page]

    async def usage(self) -> DriveUsage:
        self._check_open()
        free = self._capacity - self._live
        return DriveUsage(self._capacity, free, self._live, 0, len(self._fragments))

    async def close(self) -> None:
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise NodeDown("the drive is closed")
