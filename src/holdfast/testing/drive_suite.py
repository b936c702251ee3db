"""What every drive must pass: `drives.interface` as tests.

Rules. A test module derives a class from `DriveSuite` and gives it a fixture `drive`, an open and empty drive with
room for 64 MiB; one that outlives its process derives from `DurableDriveSuite` as well and adds `reopen`, which
closes the drive and opens it anew. The oracle is a plain dict: it goes through nothing of the code under test. The
suite needs no test runner's imports, so that it can be shipped to operators.
"""

import asyncio
from collections.abc import Awaitable, Callable
from hashlib import sha256
from random import Random  # noqa: TID251  seeded: every run of the suite does the same

import msgspec

from holdfast.core.errors import InvalidRequest, NodeDown, NotFound
from holdfast.core.ids import BlockId, Buffer
from holdfast.core.limits import KIB, LEAF_BYTES, MIB
from holdfast.core.ranges import ByteRange
from holdfast.drives.interface import TAG_MAX_BYTES, Drive, Fragment, FragmentKey
from holdfast.testing.refusal import refusal as refusal

SIZES = (0, 1, 7, 4 * KIB - 1, 4 * KIB, LEAF_BYTES - 1, LEAF_BYTES, LEAF_BYTES + 1, 256 * KIB, MIB + 3, 4 * MIB)


def key_of(number: int, index: int = 0) -> FragmentKey:
    """The `number`th key of a test; its block id is as scattered as a real one."""
    return FragmentKey(BlockId(sha256(number.to_bytes(8, "big")).digest()), index)


def make_fragment(number: int, size: int = 5000, *, index: int = 0, tag: bytes = b"tag") -> Fragment:
    """A fragment whose bytes follow from `number` and `index`; drives do not look into commitments and leaves."""
    payload = Random(number * 64 + index).randbytes(size)
    leaves = b"".join(sha256(payload[at : at + LEAF_BYTES]).digest() for at in range(0, size, LEAF_BYTES))
    return Fragment(key_of(number, index), b"commitment %d" % number, leaves, tag, payload)


async def assert_holds(drive: Drive, fragment: Fragment) -> None:
    """The drive has the whole fragment, bit for bit."""
    part = await drive.get(fragment.key)
    assert bytes(part.data) == bytes(fragment.payload)
    assert (part.start, part.length) == (0, len(fragment.payload))
    assert (part.key, part.tag) == (fragment.key, fragment.tag)
    assert (part.commitment, part.leaves) == (fragment.commitment, fragment.leaves)


async def list_all(drive: Drive, limit: int = 7) -> list[tuple[FragmentKey, int, bytes]]:
    """Everything that the drive lists, page by page."""
    found: list[tuple[FragmentKey, int, bytes]] = []
    after = None
    while page := await drive.list(after, limit):
        assert len(page) <= limit
        found += [(info.key, info.length, info.tag) for info in page]
        after = page[-1].key
    return found


class DriveSuite:
    """The promises of `Drive`."""

    async def test_what_was_put_is_read_back(self, drive: Drive) -> None:
        fragments = [make_fragment(number, size) for number, size in enumerate(SIZES)]
        for fragment in fragments:
            await drive.put([fragment])
        for fragment in fragments:
            await assert_holds(drive, fragment)

    async def test_one_call_stores_many(self, drive: Drive) -> None:
        fragments = [make_fragment(number, 100 * number, index=number % 6) for number in range(100)]
        await drive.put(fragments)
        for fragment in fragments:
            await assert_holds(drive, fragment)

    async def test_payloads_of_every_buffer_type(self, drive: Drive) -> None:
        plain = make_fragment(1)
        kinds: tuple[Buffer, ...] = (bytearray(plain.payload), memoryview(bytes(plain.payload)))
        for number, payload in enumerate(kinds):
            key = key_of(number)
            await drive.put([Fragment(key, b"c", b"", b"", payload)])
            assert bytes((await drive.get(key)).data) == plain.payload

    async def test_put_has_taken_its_own_copy(self, drive: Drive) -> None:
        buffer = bytearray(b"a" * 10_000)
        await drive.put([Fragment(key_of(1), b"c", b"", b"", memoryview(buffer))])
        buffer[:] = b"b" * 10_000
        assert bytes((await drive.get(key_of(1))).data) == b"a" * 10_000

    async def test_indices_of_a_block_are_apart(self, drive: Drive) -> None:
        fragments = [make_fragment(5, index=index) for index in (0, 1, 255, 256, 0xFFFF)]
        await drive.put(fragments)
        for fragment in fragments:
            await assert_holds(drive, fragment)
        await drive.delete([fragments[2].key])
        assert await drive.has([f.key for f in fragments]) == [True, True, False, True, True]

    async def test_range_is_rounded_out_to_leaves(self, drive: Drive) -> None:
        size = 5 * LEAF_BYTES + 17
        fragment = make_fragment(1, size)
        await drive.put([fragment])
        edges = (0, 1, LEAF_BYTES - 1, LEAF_BYTES, LEAF_BYTES + 1, 3 * LEAF_BYTES, size - 18, size - 17, size - 1, size)
        for start in edges:
            for end in (end for end in edges if end > start):
                part = await drive.get(fragment.key, ByteRange(start, end))
                assert part.start == start // LEAF_BYTES * LEAF_BYTES
                assert part.start + len(part.data) == min(size, -(-end // LEAF_BYTES) * LEAF_BYTES)
                assert bytes(part.data) == bytes(fragment.payload[part.start : part.start + len(part.data)])
                assert (part.length, part.leaves, part.tag) == (size, fragment.leaves, fragment.tag)

    async def test_range_past_the_payload_is_refused(self, drive: Drive) -> None:
        fragment = make_fragment(1, 1000)
        await drive.put([fragment])
        await refusal(InvalidRequest, drive.get(fragment.key, ByteRange(0, 1001)))
        await refusal(InvalidRequest, drive.get(fragment.key, ByteRange(2000, 3000)))

    async def test_what_a_thread_is_given_is_what_get_gives(self, drive: Drive) -> None:
        size = MIB + 3
        await drive.put([make_fragment(0, size=size)])
        part = await drive.get(key_of(0))
        await asyncio.to_thread(drive.expect, key_of(0))
        for get in (drive.get_at_once, drive.get_here):
            # The wrong length is of no use, and no error.
            for into in (None, memoryview(bytearray(size)), memoryview(bytearray(size - 1))):
                try:
                    given = await asyncio.to_thread(get, key_of(0), into)
                except BlockingIOError:
                    # A drive may forget what it read, never have it in memory, or be far away.
                    continue
                assert msgspec.structs.replace(given, data=b"") == msgspec.structs.replace(part, data=b"")
                assert bytes(given.data) == bytes(part.data)

    async def test_what_is_not_there_is_not_given_to_threads(self, drive: Drive) -> None:
        await asyncio.to_thread(drive.expect, key_of(0))
        for get in (drive.get_at_once, drive.get_here):
            try:
                await asyncio.to_thread(get, key_of(0))
            except (NotFound, BlockingIOError):
                continue
            raise AssertionError("it was had")

    async def test_what_is_missing_is_not_found(self, drive: Drive) -> None:
        await refusal(NotFound, drive.get(key_of(1)))
        await refusal(NotFound, drive.get(key_of(1), ByteRange(0, 1)))
        await drive.delete([key_of(1)])
        assert await drive.has([key_of(1)]) == [False]
        assert await drive.has([]) == []
        assert await drive.list() == []

    async def test_deleted_is_gone(self, drive: Drive) -> None:
        fragments = [make_fragment(number) for number in range(10)]
        await drive.put(fragments)
        await drive.delete([f.key for f in fragments[:5]])
        assert await drive.has([f.key for f in fragments]) == [False] * 5 + [True] * 5
        for fragment in fragments[:5]:
            await refusal(NotFound, drive.get(fragment.key))
        for fragment in fragments[5:]:
            await assert_holds(drive, fragment)

    async def test_put_again_keeps_the_newer_tag(self, drive: Drive) -> None:
        await drive.put([make_fragment(1, tag=b"old")])
        await drive.put([make_fragment(1, tag=b"new")])
        await assert_holds(drive, make_fragment(1, tag=b"new"))
        assert await list_all(drive) == [(key_of(1), 5000, b"new")]
        await drive.delete([key_of(1)])
        assert await drive.has([key_of(1)]) == [False]

    async def test_one_call_with_a_key_twice_keeps_the_later(self, drive: Drive) -> None:
        await drive.put([make_fragment(1, tag=b"old"), make_fragment(1, tag=b"new")])
        await assert_holds(drive, make_fragment(1, tag=b"new"))
        assert (await drive.usage()).fragments == 1

    async def test_put_after_delete_is_there(self, drive: Drive) -> None:
        for _ in range(3):
            await drive.put([make_fragment(1)])
            await drive.delete([key_of(1)])
        await drive.put([make_fragment(1)])
        await assert_holds(drive, make_fragment(1))

    async def test_listing_pages_in_key_order(self, drive: Drive) -> None:
        fragments = [make_fragment(n, n, index=i, tag=b"%d" % n) for n in range(40) for i in (0, 1)]
        await drive.put(fragments)
        await drive.delete([key_of(3, 0), key_of(3, 1), key_of(8, 1)])
        expected = sorted((f.key, len(f.payload), f.tag) for f in fragments)
        gone = {key_of(3, 0), key_of(3, 1), key_of(8, 1)}
        expected = [line for line in expected if line[0] not in gone]
        for limit in (1, 7, 1000):
            assert await list_all(drive, limit) == expected
        after = FragmentKey(BlockId(b"\xff" * 32), 0xFFFF)
        assert await drive.list(after) == []

    async def test_limits_are_refused_and_nothing_is_stored(self, drive: Drive) -> None:
        good = make_fragment(1)
        bad = [
            Fragment(FragmentKey(BlockId(b"short"), 0), b"c", b"", b"", b""),
            Fragment(key_of(2, -1), b"c", b"", b"", b""),
            Fragment(key_of(2, 1 << 16), b"c", b"", b"", b""),
            Fragment(key_of(2), b"c" * 5000, b"", b"", b""),
            Fragment(key_of(2), b"c", bytes(32 * 1000), b"", b""),
            Fragment(key_of(2), b"c", b"", bytes(TAG_MAX_BYTES + 1), b""),
            Fragment(key_of(2), b"c", b"", b"", bytes(5 * MIB)),
        ]
        for fragment in bad:
            await refusal(InvalidRequest, drive.put([good, fragment]))
        assert await list_all(drive) == []
        longest = Fragment(key_of(3), b"c" * KIB, bytes(32 * 64), bytes(TAG_MAX_BYTES), bytes(4 * MIB))
        await drive.put([longest])
        await assert_holds(drive, longest)

    async def test_usage_counts_what_is_there(self, drive: Drive) -> None:
        empty = await drive.usage()
        assert (empty.fragments, empty.live) == (0, 0)
        assert 0 < empty.free <= empty.total
        await drive.put([make_fragment(number, 10_000) for number in range(10)])
        full = await drive.usage()
        assert full.fragments == 10
        assert 100_000 <= full.live <= 200_000
        await drive.delete([key_of(number) for number in range(10)])
        after = await drive.usage()
        assert (after.fragments, after.live) == (0, 0)

    async def test_many_at_once(self, drive: Drive) -> None:
        fragments = [make_fragment(number, 3000 + number) for number in range(200)]
        await asyncio.gather(*(drive.put([fragment]) for fragment in fragments))
        await asyncio.gather(*(assert_holds(drive, fragment) for fragment in fragments))
        await asyncio.gather(*(drive.delete([fragment.key]) for fragment in fragments[::2]))
        assert await drive.has([f.key for f in fragments]) == [False, True] * 100

    async def test_racing_calls_on_few_keys_leave_one_outcome(self, drive: Drive) -> None:
        random = Random(7)

        async def worker() -> None:
            for _ in range(30):
                number = random.randrange(4)
                if random.random() < 0.5:
                    await drive.put([make_fragment(number)])
                elif random.random() < 0.5:
                    await drive.delete([key_of(number)])
                else:
                    try:
                        await assert_holds(drive, make_fragment(number))
                    except NotFound:
                        pass

        await asyncio.gather(*(worker() for _ in range(10)))
        here = await drive.has([key_of(number) for number in range(4)])
        listed = {key for key, _, _ in await list_all(drive)}
        assert listed == {key_of(number) for number in range(4) if here[number]}
        for number in listed & {key_of(n) for n in range(4)}:
            assert (await drive.get(number)).length == 5000

    async def test_a_cancelled_put_leaves_nothing_in_part(self, drive: Drive) -> None:
        fragments = [make_fragment(number, 100_000) for number in range(20)]
        for fragment in fragments:
            task = asyncio.create_task(drive.put([fragment]))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await drive.put([make_fragment(99)])
        for fragment, there in zip(fragments, await drive.has([f.key for f in fragments]), strict=True):
            if there:
                await assert_holds(drive, fragment)

    async def test_random_history_against_a_dict(self, drive: Drive) -> None:
        random = Random(11)
        oracle: dict[FragmentKey, Fragment] = {}
        for _ in range(300):
            number = random.randrange(30)
            if random.random() < 0.6:
                fragment = make_fragment(number, 200 * number, tag=random.randbytes(4))
                await drive.put([fragment])
                oracle[fragment.key] = fragment
            else:
                await drive.delete([key_of(number)])
                oracle.pop(key_of(number), None)
        assert await list_all(drive) == sorted((f.key, len(f.payload), f.tag) for f in oracle.values())
        for fragment in oracle.values():
            await assert_holds(drive, fragment)

    async def test_close_waits_and_then_refuses(self, drive: Drive) -> None:
        fragment = make_fragment(1, MIB)
        put = asyncio.create_task(drive.put([fragment]))
        await asyncio.sleep(0)
        await drive.close()
        await put
        await refusal(NodeDown, drive.put([make_fragment(2)]))
        await refusal(NodeDown, drive.get(fragment.key))
        await drive.close()


class DurableDriveSuite:
    """For drives that outlive their process."""

    async def test_everything_survives_a_restart(self, drive: Drive, reopen: Callable[[], Awaitable[Drive]]) -> None:
        fragments = [make_fragment(number, size) for number, size in enumerate(SIZES)]
        await drive.put(fragments)
        await drive.delete([fragments[3].key])
        for _ in range(3):
            drive = await reopen()
            assert await drive.has([f.key for f in fragments]) == [number != 3 for number in range(len(SIZES))]
            for number, fragment in enumerate(fragments):
                if number != 3:
                    await assert_holds(drive, fragment)
            await drive.put([fragments[0]])

    async def test_deleted_stays_deleted(self, drive: Drive, reopen: Callable[[], Awaitable[Drive]]) -> None:
        for number in range(5):
            await drive.put([make_fragment(number)])
        drive = await reopen()
        await drive.delete([key_of(number) for number in range(5)])
        await drive.put([make_fragment(0)])
        drive = await reopen()
        assert await drive.has([key_of(number) for number in range(5)]) == [True] + [False] * 4
        assert (await drive.usage()).fragments == 1
