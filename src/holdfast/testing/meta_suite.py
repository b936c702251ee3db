"""What every metadata engine must pass: `meta.interface` as tests.

Rules. A test module derives a class from `MetaSuite` and gives it a fixture `meta`, an open and empty engine; an
engine that several processes share also gives `peer`, a second handle on the same map. The oracle is a plain dict
and sorted(): it goes through nothing of the code under test. The suite needs no test runner's imports, so that it
can be shipped to operators.
"""

import asyncio
from collections.abc import Sequence
from random import Random  # noqa: TID251  seeded: every run of the suite does the same

from holdfast.core.errors import Ambiguous, HoldfastError, InvalidRequest, NotFound, PreconditionFailed
from holdfast.core.ids import RANDOM_ID_BYTES, Token
from holdfast.core.limits import COMMIT_CHANGES_MAX_COUNT, ROW_KEY_MAX_BYTES, ROW_VALUE_MAX_BYTES
from holdfast.core.ranges import KeyRange, prefix_range
from holdfast.meta.interface import (
    Change,
    Delete,
    Expectation,
    Fold,
    Folded,
    HasToken,
    IsAbsent,
    IsEmpty,
    Meta,
    Page,
    Put,
    Row,
)
from holdfast.testing.refusal import refusal as refusal

Entry = tuple[str, bytes]
"""What the oracle says of an entry: ("row", key) or ("folded", prefix)."""


def token(number: int) -> Token:
    """The `number`th token of a test."""
    return Token(number.to_bytes(RANDOM_ID_BYTES, "big"))


async def scan_all(
    meta: Meta, range: KeyRange, *, limit: int, fold: Fold | None = None, values: bool = True
) -> list[Row | Folded]:
    """Every entry of a range, page by page."""
    entries: list[Row | Folded] = []
    resume: bytes | None = range.start
    while resume is not None:
        page = await meta.scan(KeyRange(resume, range.end), limit=limit, fold=fold, values=values)
        assert len(page.entries) <= limit
        assert page.resume is None or page.resume > resume or page.entries, "a page makes progress"
        entries.extend(page.entries)
        resume = page.resume
    return entries


def oracle_scan(rows: dict[bytes, bytes], range: KeyRange, fold: Fold | None) -> list[Entry]:
    """What a scan of the whole range must say, by brute force."""
    entries: list[Entry] = []
    for key in sorted(rows):
        if key < range.start or (range.end is not None and key >= range.end):
            continue
        entry = ("row", key)
        if fold is not None:
            head, tail = key[: fold.skip], key[fold.skip :]
            before, delimiter, _ = tail.partition(fold.delimiter)
            if delimiter:
                entry = ("folded", head + before + delimiter)
        if not entries or entries[-1] != entry:
            entries.append(entry)
    return entries


def names(entries: Sequence[Row | Folded]) -> list[Entry]:
    """Entries as the oracle writes them."""
    return [("row", entry.key) if isinstance(entry, Row) else ("folded", entry.prefix) for entry in entries]


class LostReplies:
    """A `Meta` whose commits take effect, and whose replies are then lost every `every`th time."""

    def __init__(self, inner: Meta, every: int) -> None:
        self._inner = inner
        self._every = every
        self._commits = 0
        self.lost = 0

    async def get(self, key: bytes) -> Row:
        return await self._inner.get(key)

    async def get_many(self, keys: Sequence[bytes]) -> list[Row | None]:
        return await self._inner.get_many(keys)

    async def scan(self, range: KeyRange, *, limit: int, fold: Fold | None = None, values: bool = True) -> Page:
        return await self._inner.scan(range, limit=limit, fold=fold, values=values)

    async def commit(self, changes: Sequence[Change], expecting: Sequence[Expectation] = (), *, token: Token) -> None:
        self._commits += 1
        failure: HoldfastError | None = None
        try:
            await self._inner.commit(changes, expecting, token=token)
        except PreconditionFailed as error:
            failure = error
        if self._commits % self._every == 0:
            self.lost += 1
            raise Ambiguous("the reply was lost")
        if failure is not None:
            raise failure

    async def close(self) -> None:
        await self._inner.close()


class MetaSuite:
    """The tests. Each takes an empty map."""

    # One row.

    async def test_a_missing_row_raises(self, meta: Meta) -> None:
        await refusal(NotFound, meta.get(b"nothing"))
        assert await meta.get_many([b"nothing", b"more"]) == [None, None]

    async def test_a_row_is_read_back_with_its_token(self, meta: Meta, peer: Meta) -> None:
        await meta.commit([Put(b"key", b"value")], token=token(1))
        for handle in (meta, peer):
            assert await handle.get(b"key") == Row(b"key", token(1), b"value")

    async def test_put_replaces_and_delete_removes(self, meta: Meta, peer: Meta) -> None:
        await meta.commit([Put(b"key", b"old")], token=token(1))
        await peer.commit([Put(b"key", b"new")], token=token(2))
        assert await meta.get(b"key") == Row(b"key", token(2), b"new")
        await meta.commit([Delete(b"key"), Delete(b"never there")], token=token(3))
        await refusal(NotFound, peer.get(b"key"))

    async def test_changes_apply_in_order(self, meta: Meta) -> None:
        await meta.commit(
            [Put(b"a", b"1"), Put(b"a", b"2"), Put(b"b", b"1"), Delete(b"b"), Delete(b"c"), Put(b"c", b"")],
            token=token(1),
        )
        rows = [Row(b"a", token(1), b"2"), None, Row(b"c", token(1), b"")]
        assert await meta.get_many([b"a", b"b", b"c"]) == rows

    async def test_get_many_keeps_the_order_and_repeats(self, meta: Meta) -> None:
        await meta.commit([Put(b"a", b"1"), Put(b"b", b"2")], token=token(1))
        a, b = Row(b"a", token(1), b"1"), Row(b"b", token(1), b"2")
        assert await meta.get_many([b"b", b"x", b"a", b"b"]) == [b, None, a, b]
        assert await meta.get_many([]) == []

    async def test_values_of_every_size(self, meta: Meta) -> None:
        sizes = (0, 1, 15, 16, 2000, 4096, 5000, 65_536, ROW_VALUE_MAX_BYTES)
        for number, size in enumerate(sizes):
            value = Random(size).randbytes(size)
            await meta.commit([Put(b"v%d" % number, value)], token=token(number))
        for number, size in enumerate(sizes):
            assert (await meta.get(b"v%d" % number)).value == Random(size).randbytes(size)
        await meta.commit([Put(b"v8", b"short")], token=token(99))
        assert (await meta.get(b"v8")).value == b"short"

    # Limits.

    async def test_limits_are_refused_and_change_nothing(self, meta: Meta) -> None:
        longest = b"k" * ROW_KEY_MAX_BYTES
        await meta.commit([Put(longest, b"fits")], token=token(1))
        assert (await meta.get(longest)).value == b"fits"
        wrong: list[list[Change]] = [
            [Put(b"good", b""), Put(longest + b"k", b"")],
            [Put(b"good", b""), Put(b"", b"")],
            [Put(b"good", b""), Delete(b"")],
            [Put(b"good", b""), Put(b"big", bytes(ROW_VALUE_MAX_BYTES + 1))],
            [Put(b"good", b"")] * (COMMIT_CHANGES_MAX_COUNT + 1),
        ]
        for changes in wrong:
            await refusal(InvalidRequest, meta.commit(changes, token=token(2)))
        await refusal(InvalidRequest, meta.commit([Put(b"good", b"")], token=Token(b"short")))
        await refusal(InvalidRequest, meta.commit([Put(b"good", b"")], [IsAbsent(b"")], token=token(2)))
        await refusal(InvalidRequest, meta.scan(KeyRange(), limit=0))
        await refusal(InvalidRequest, meta.scan(KeyRange(), limit=1, fold=Fold(b"", 0)))
        await refusal(InvalidRequest, meta.scan(KeyRange(), limit=1, fold=Fold(b"/", -1)))
        await refusal(NotFound, meta.get(b"good"))

    async def test_the_largest_commit(self, meta: Meta) -> None:
        changes = [Put(b"row %06d" % number, b"%d" % number) for number in range(COMMIT_CHANGES_MAX_COUNT)]
        await meta.commit(changes, token=token(1))
        entries = await scan_all(meta, KeyRange(), limit=1001)
        assert [Put(row.key, row.value) for row in entries if isinstance(row, Row)] == changes

    # Expectations.

    async def test_expectations_that_hold(self, meta: Meta) -> None:
        await meta.commit([Put(b"a", b"1")], [IsAbsent(b"a"), IsEmpty(KeyRange())], token=token(1))
        await meta.commit(
            [Put(b"a", b"2")],
            [HasToken(b"a", token(1)), IsAbsent(b"b"), IsEmpty(KeyRange(b"a\x00")), IsEmpty(KeyRange(b"", b"a"))],
            token=token(2),
        )
        assert (await meta.get(b"a")).value == b"2"

    async def test_expectations_that_do_not_hold(self, meta: Meta, peer: Meta) -> None:
        await meta.commit([Put(b"m", b"1")], token=token(1))
        wrong: list[Expectation] = [
            HasToken(b"m", token(2)),
            HasToken(b"x", token(1)),
            IsAbsent(b"m"),
            IsEmpty(KeyRange()),
            IsEmpty(KeyRange(b"m")),
            IsEmpty(KeyRange(b"m", b"m\x00")),
            IsEmpty(KeyRange(b"a", b"z")),
        ]
        for expectation in wrong:
            expecting = [IsAbsent(b"free"), expectation]
            error = await refusal(
                PreconditionFailed, peer.commit([Put(b"free", b""), Delete(b"m")], expecting, token=token(3))
            )
            assert error.failed == (1,)
        assert await meta.get_many([b"m", b"free"]) == [Row(b"m", token(1), b"1"), None]

    async def test_expectations_see_the_state_before_the_changes(self, meta: Meta) -> None:
        await meta.commit([Put(b"a", b"1"), Delete(b"a")], [IsAbsent(b"a")], token=token(1))
        await meta.commit([], [IsAbsent(b"a")], token=token(2))
        await refusal(PreconditionFailed, meta.commit([], [HasToken(b"a", token(1))], token=token(3)))

    async def test_an_empty_range_is_judged_to_the_byte(self, meta: Meta) -> None:
        for number, key in enumerate((b"a\xff", b"b", b"b\x00", b"b" * 600)):
            await meta.commit([Put(key, b"")], [IsEmpty(KeyRange(key, key + b"\x00"))], token=token(number))
        await meta.commit([], [IsEmpty(KeyRange(b"b\x00\x00", b"b" * 600))], token=token(9))
        await meta.commit([], [IsEmpty(KeyRange(b"b" * 600 + b"\x00"))], token=token(9))
        await refusal(
            PreconditionFailed,
            meta.commit([], [IsEmpty(KeyRange(b"b\x00\x00", b"b" * 600 + b"\x00"))], token=token(9)),
        )
        await meta.commit([], [IsEmpty(KeyRange(b"b", b"b")), IsEmpty(KeyRange(b"c", b"a"))], token=token(9))

    # Order, and keys around the engine's own limits.

    async def test_keys_of_510_to_1100_bytes_keep_their_order(self, meta: Meta) -> None:
        random = Random(510)
        keys = {bytes([fill]) * length for fill in (0, 0x61, 0xFF) for length in range(500, 530)}
        for length in (510, 511, 512, 600, 1000, 1024, 1100):
            stem = b"p" * (length - 10)
            keys.update(stem + tail for tail in (b"", b"\x00", b"\x00\x00", b"\x00\xff", b"\x01", b"\xff", b"\xff\x00"))
            keys.update(stem + random.randbytes(10) for _ in range(20))
        keys.update(b"q" * 495 + random.randbytes(random.randrange(1, 600)) for _ in range(200))
        keys.update(
            b"r" * 505 + bytes(random.choice((0, 1, 255)) for _ in range(random.randrange(12))) for _ in range(900)
        )
        await self._holds_as_a_dict_would(meta, keys, random)

    async def test_keys_of_every_byte_keep_their_order(self, meta: Meta) -> None:
        random = Random(1)
        keys = {bytes([byte]) for byte in range(256)} | {bytes([byte, 0]) for byte in range(0, 256, 5)}
        keys.update(random.randbytes(random.randrange(1, 5)) for _ in range(200))
        await self._holds_as_a_dict_would(meta, keys, random)

    async def _holds_as_a_dict_would(self, meta: Meta, keys: set[bytes], random: Random) -> None:
        """Commit `keys` in random order, scan from and to each of some, delete half, scan again."""
        order = sorted(keys)
        random.shuffle(order)
        rows = {key: b"%d" % len(key) for key in order}
        await meta.commit([Put(key, value) for key, value in rows.items()], token=token(1))
        for _ in range(2):
            entries = await scan_all(meta, KeyRange(), limit=100)
            assert [(row.key, row.value) for row in entries if isinstance(row, Row)] == sorted(rows.items())
            for _ in range(30):
                start, end = random.choice(order), random.choice([*order, None])
                wanted = KeyRange(start + random.choice((b"", b"\x00", b"\xff")), end)
                assert names(await scan_all(meta, wanted, limit=7)) == oracle_scan(rows, wanted, None)
            gone = order[::2]
            await meta.commit([Delete(key) for key in gone], token=token(2))
            for key in gone:
                rows.pop(key, None)
            found = await meta.get_many(order)
            assert [row and row.value for row in found] == [rows.get(key) for key in order]

    # Scans.

    async def test_a_scan_pages(self, meta: Meta) -> None:
        await meta.commit([Put(b"k%02d" % number, b"v") for number in range(25)], token=token(1))
        for limit in (1, 7, 25, 26, 1001):
            entries = await scan_all(meta, prefix_range(b"k"), limit=limit)
            assert names(entries) == [("row", b"k%02d" % number) for number in range(25)]
        page = await meta.scan(KeyRange(b"k", b"k03"), limit=10)
        assert len(page.entries) == 3
        assert page.resume is None
        assert await meta.scan(KeyRange(b"x", b"y"), limit=10) == Page((), None)
        assert await meta.scan(KeyRange(b"z", b"a"), limit=10) == Page((), None)

    async def test_a_scan_without_values(self, meta: Meta) -> None:
        await meta.commit([Put(b"a", b"1"), Put(b"b" * 700, bytes(10_000))], token=token(1))
        entries = await scan_all(meta, KeyRange(), limit=10, values=False)
        assert entries == [Row(b"a", token(1), b""), Row(b"b" * 700, token(1), b"")]

    async def test_a_scan_folds_as_the_oracle_does(self, meta: Meta) -> None:
        random = Random(2)
        alphabet = (b"a", b"b", b"/", b"//", b"\x00", b"\xff", b"/\xff")
        keys = {b"".join(random.choices(alphabet, k=random.randrange(1, 9))) for _ in range(600)}
        keys.update(b"long/" + b"x" * 505 + b"".join(random.choices(alphabet, k=6)) for _ in range(200))
        keys.update(b"long/" + b"y" * 500 + b"/" + random.randbytes(60) for _ in range(50))
        rows = dict.fromkeys(keys, b"v")
        await meta.commit([Put(key, b"v") for key in keys], token=token(1))
        order = sorted(keys)
        for _ in range(150):
            fold = Fold(random.choice((b"/", b"//", b"a", b"\xff", b"/\xff", b"xxx")), random.choice((0, 1, 2, 5, 507)))
            start = random.choice((b"", random.choice(order), random.choice(order)[:3]))
            end = random.choice((None, None, random.choice(order)))
            wanted = KeyRange(start, end)
            entries = await scan_all(meta, wanted, limit=random.choice((1, 3, 50)), fold=fold)
            assert names(entries) == oracle_scan(rows, wanted, fold)

    async def test_a_random_history_is_as_a_dict(self, meta: Meta, peer: Meta) -> None:
        random = Random(3)
        rows: dict[bytes, tuple[Token, bytes]] = {}
        keys = [b"k%d" % number * random.choice((1, 1, 300)) for number in range(40)]
        for number in range(400):
            handle = random.choice((meta, peer))
            key = random.choice(keys)
            now = rows.get(key)
            expecting: list[Expectation] = [IsAbsent(key)]
            if now is not None and random.random() < 0.7:
                expecting = [HasToken(key, now[0])]
            changes: list[Change] = [
                Delete(name) if random.random() < 0.3 else Put(name, random.randbytes(random.randrange(100)))
                for name in random.choices(keys, k=random.randrange(1, 5))
            ]
            holds = (now is None) == isinstance(expecting[0], IsAbsent)
            if not holds:
                await refusal(PreconditionFailed, handle.commit(changes, expecting, token=token(number)))
                continue
            await handle.commit(changes, expecting, token=token(number))
            for change in changes:
                rows.pop(change.key, None)
                if isinstance(change, Put):
                    rows[change.key] = (token(number), change.value)
            if number % 40 == 0:
                entries = await scan_all(peer, KeyRange(), limit=13)
                wanted = [Row(key, *rows[key]) for key in sorted(rows)]
                assert entries == wanted

    # Races.

    async def test_counters_lose_no_update(self, meta: Meta, peer: Meta) -> None:
        done = await asyncio.gather(*(count_up(handle, task, 25, 3) for task, handle in enumerate([meta, peer] * 6)))
        rows = await meta.get_many([counter_key(number) for number in range(3)])
        assert sum(int(row.value) for row in rows if row is not None) == sum(done) == 12 * 25

    async def test_one_of_many_creates(self, meta: Meta, peer: Meta) -> None:
        async def create(number: int) -> bool:
            try:
                handle = peer if number % 2 else meta
                await handle.commit([Put(b"one", b"%d" % number)], [IsAbsent(b"one")], token=token(number))
            except PreconditionFailed:
                return False
            return True

        won = await asyncio.gather(*(create(number) for number in range(64)))
        assert sum(won) == 1
        assert (await meta.get(b"one")).value == b"%d" % won.index(True)

    async def test_a_lost_reply_is_settled_by_the_token(self, meta: Meta) -> None:
        lossy = LostReplies(meta, every=3)
        count = 0
        for number in range(60):
            rows = await lossy.get_many([b"counter"])
            [row] = rows
            expecting: Expectation = IsAbsent(b"counter") if row is None else HasToken(b"counter", row.token)
            value = 1 if row is None else int(row.value) + 1
            try:
                await lossy.commit([Put(b"counter", b"%d" % value)], [expecting], token=token(number))
            except Ambiguous:
                assert (await lossy.get(b"counter")).token == token(number)
            count += 1
        assert lossy.lost == 20
        assert (await meta.get(b"counter")).value == b"%d" % count

    async def test_a_read_after_a_commit_sees_it(self, meta: Meta, peer: Meta) -> None:
        for number in range(50):
            writer, reader = (meta, peer) if number % 2 else (peer, meta)
            await writer.commit([Put(b"row %d" % number, b"")], token=token(number))
            assert (await reader.get(b"row %d" % number)).token == token(number)
            page = await reader.scan(prefix_range(b"row "), limit=1001)
            assert len(page.entries) == number + 1

    async def test_a_commit_is_never_seen_in_part(self, meta: Meta, peer: Meta) -> None:
        stop = asyncio.Event()
        keys = [b"a", b"m" * 600, b"z"]

        async def write() -> None:
            for number in range(100):
                await meta.commit([Put(key, b"%d" % number) for key in keys], token=token(number))
            stop.set()

        async def read() -> int:
            seen = 0
            while not stop.is_set():
                rows = await peer.get_many(keys)
                assert len({row and row.token for row in rows}) == 1
                page = await peer.scan(KeyRange(), limit=10)
                assert len({entry.token for entry in page.entries if isinstance(entry, Row)}) <= 1
                seen += 1
                await asyncio.sleep(0)
            return seen

        _, seen = await asyncio.gather(write(), read())
        assert seen > 0

    async def test_a_cancelled_commit_is_whole_or_not_there(self, meta: Meta) -> None:
        for number in range(20):
            keys = [b"c%d-%d" % (number, part) for part in range(4)]
            task = asyncio.ensure_future(meta.commit([Put(key, b"x") for key in keys], token=token(number)))
            for _ in range(number % 4):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await meta.commit([Put(b"after", b"")], token=token(99))
        for number in range(20):
            rows = await meta.get_many([b"c%d-%d" % (number, part) for part in range(4)])
            assert len({row is None for row in rows}) == 1


def counter_key(number: int) -> bytes:
    """The row of a counter in the races."""
    return b"counter %d" % number


async def count_up(meta: Meta, racer: int, increments: int, counters: int) -> int:
    """Add one to counters by compare-and-swap, `increments` times; returns how many took effect (all)."""
    for step in range(increments):
        key = counter_key((racer + step) % counters)
        attempt = 0
        while not await compare_and_swap(meta, key, token(((racer << 24 | step) << 24) | attempt)):
            attempt += 1
    return increments


async def compare_and_swap(meta: Meta, key: bytes, token: Token) -> bool:
    """One attempt to add one to a counter; whether it took effect."""
    [row] = await meta.get_many([key])
    expecting: Expectation = IsAbsent(key) if row is None else HasToken(key, row.token)
    value = 1 if row is None else int(row.value) + 1
    try:
        await meta.commit([Put(key, b"%d" % value)], [expecting], token=token)
    except PreconditionFailed:
        return False
    return True
