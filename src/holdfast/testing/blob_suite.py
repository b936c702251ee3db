"""What every blob store must pass: `gateways.sos.blobs.BlobStore` as tests.

A test module derives a class from `BlobSuite` and gives it two fixtures: `store`, open and empty, and `peer`, a second
handle on the same blobs as another process would have it. The oracle is a plain dict.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from random import Random  # noqa: TID251  seeded: every run of the suite does the same

from holdfast.core.errors import AlreadyExists, InvalidRequest, NotFound
from holdfast.core.ids import Buffer
from holdfast.core.limits import KIB, MIB
from holdfast.gateways.sos.blobs import BlobStore, SmallBlob
from holdfast.testing.refusal import refusal as refusal

SIZES = (0, 1, 1000, 8 * KIB, 8 * KIB + 1, 512 * KIB, MIB - 1, MIB, MIB + 1, 3 * MIB + 17)
"""Around what stores keep whole, and around the pieces that they cut."""


async def pieces(data: bytes, piece_bytes: int = 64 * KIB) -> AsyncIterator[Buffer]:
    """A body as it arrives. The buffer is used again for the next piece, as servers do."""
    buffer = bytearray(piece_bytes)
    for start in range(0, len(data), piece_bytes):
        part = data[start : start + piece_bytes]
        buffer[: len(part)] = part
        yield memoryview(buffer)[: len(part)]


async def broken(data: bytes) -> AsyncIterator[Buffer]:
    """A body whose sender goes away."""
    yield data
    raise InvalidRequest("gone")


async def read(store: BlobStore, id: str) -> bytes:
    """All of a blob; its size is checked."""
    blob = await store.open(id)
    data = b"".join([bytes(piece) async for piece in blob.pieces])
    assert len(data) == blob.info.size
    return data


async def list_ids(store: BlobStore) -> list[str]:
    """Every id, sorted."""
    found: list[str] = []
    async for batch in store.ids():
        found.extend(batch)
    return sorted(found)


class BlobSuite:
    """The tests. Each takes an empty store."""

    async def test_an_empty_store(self, store: BlobStore) -> None:
        assert await list_ids(store) == []
        await refusal(NotFound, store.info("nothing"))
        await refusal(NotFound, store.open("nothing"))
        await store.delete("nothing")

    async def test_many_at_once_are_as_each_alone(self, store: BlobStore, peer: BlobStore) -> None:
        bodies = {f"many{number}": Random(number).randbytes(number * 37 % 5000) for number in range(40)}
        bodies["large"] = Random(1).randbytes(9 * KIB)
        headers = {"x-mime-type": "text/plain"}
        assert await store.put_many([]) == []
        await store.put("many3", pieces(bodies["many3"]), {})
        await store.put("many4", pieces(b"other"), {})
        sizes = await store.put_many([SmallBlob(name, headers, body) for name, body in bodies.items()])
        for (name, body), size in zip(bodies.items(), sizes, strict=True):
            if name == "many4":
                assert isinstance(size, AlreadyExists)
            else:
                assert size == len(body)
                assert await read(peer, name) == body
                assert (await peer.info(name)).headers == ({} if name == "many3" else headers)
        assert await read(peer, "many4") == b"other"
        twice = [SmallBlob("twice", {}, b"first"), SmallBlob("twice", {}, b"first")]
        assert await store.put_many(twice) == [5, 5]
        assert await list_ids(peer) == sorted([*bodies, "twice"])

    async def test_what_was_put_is_found(self, store: BlobStore, peer: BlobStore) -> None:
        bodies = {f"size{size}": Random(size).randbytes(size) for size in SIZES}
        headers = {"x-mime-type": "text/plain", "x-name": "caf\xe9 \"quoted\" 'and' more"}
        for name, body in bodies.items():
            assert await store.put(name, pieces(body), headers) == len(body)
        for handle in (store, peer):
            assert await list_ids(handle) == sorted(bodies)
            for name, body in bodies.items():
                info = await handle.info(name)
                assert (info.id, info.size, dict(info.headers)) == (name, len(body), headers)
                assert await read(handle, name) == body

    async def test_headers_may_be_none(self, store: BlobStore) -> None:
        await store.put("a", pieces(b"1"), {})
        assert dict((await store.info("a")).headers) == {}

    async def test_the_same_bytes_again_change_nothing(self, store: BlobStore, peer: BlobStore) -> None:
        for size in (10, 2 * MIB + 1):
            body = Random(size).randbytes(size)
            await store.put(f"id{size}", pieces(body), {"x-first": "1"})
            assert await peer.put(f"id{size}", pieces(body, 1000), {"x-second": "2"}) == size
            assert dict((await store.info(f"id{size}")).headers) == {"x-first": "1"}
            assert await read(peer, f"id{size}") == body

    async def test_other_bytes_are_refused(self, store: BlobStore, peer: BlobStore) -> None:
        for size in (10, 2 * MIB + 1):
            body = Random(size).randbytes(size)
            await store.put(f"id{size}", pieces(body), {})
            for other in (body[:-1], body + b"x", bytes(size), b""):
                await refusal(AlreadyExists, peer.put(f"id{size}", pieces(other), {}))
            assert await read(store, f"id{size}") == body

    async def test_a_body_that_breaks_off_leaves_nothing(self, store: BlobStore) -> None:
        for size in (10, 3 * MIB):
            await refusal(InvalidRequest, store.put("broken", broken(bytes(size)), {}))
            await refusal(NotFound, store.info("broken"))
            assert "broken" not in await list_ids(store)
        await store.put("broken", pieces(b"whole now"), {})
        assert await read(store, "broken") == b"whole now"

    async def test_nothing_is_seen_before_the_end(self, store: BlobStore, peer: BlobStore) -> None:
        arrived, go_on = asyncio.Event(), asyncio.Event()

        async def slow() -> AsyncIterator[Buffer]:
            yield bytes(2 * MIB)
            arrived.set()
            await go_on.wait()
            yield b"end"

        putting = asyncio.create_task(store.put("slow", slow(), {}))
        await arrived.wait()
        await refusal(NotFound, peer.open("slow"))
        assert await list_ids(peer) == []
        go_on.set()
        assert await putting == 2 * MIB + 3
        assert await read(peer, "slow") == bytes(2 * MIB) + b"end"

    async def test_a_cancelled_put_leaves_nothing(self, store: BlobStore) -> None:
        arrived = asyncio.Event()

        async def endless() -> AsyncIterator[Buffer]:
            yield bytes(2 * MIB)
            arrived.set()
            await asyncio.Event().wait()

        putting = asyncio.create_task(store.put("gone", endless(), {}))
        await arrived.wait()
        putting.cancel()
        await asyncio.gather(putting, return_exceptions=True)
        await refusal(NotFound, store.info("gone"))
        await store.put("gone", pieces(b"here"), {})
        assert await read(store, "gone") == b"here"

    async def test_of_many_at_once_one_wins(self, store: BlobStore, peer: BlobStore) -> None:
        for size in (100, 2 * MIB):
            bodies = [Random(number).randbytes(size) for number in (1, 1, 2, 2, 3)]
            handles = [store, peer, store, peer, store]
            answers = await asyncio.gather(
                *(handle.put(f"race{size}", pieces(body), {}) for handle, body in zip(handles, bodies, strict=True)),
                return_exceptions=True,
            )
            winner = await read(store, f"race{size}")
            for body, answer in zip(bodies, answers, strict=True):
                assert answer == size if body == winner else isinstance(answer, AlreadyExists), answer
            assert winner in bodies

    async def test_deleted_is_gone_and_the_id_free(self, store: BlobStore, peer: BlobStore) -> None:
        for size in (10, 2 * MIB):
            await store.put("d", pieces(bytes(size)), {})
            await peer.delete("d")
            await refusal(NotFound, store.open("d"))
            assert await list_ids(store) == []
            await store.put("d", pieces(b"other"), {})
            assert await read(peer, "d") == b"other"
            assert await list_ids(peer) == ["d"]
            await store.delete("d")

    async def test_a_reader_may_leave_early(self, store: BlobStore) -> None:
        body = Random(5).randbytes(5 * MIB)
        await store.put("large", pieces(body), {})
        for _ in range(20):
            blob = await store.open("large")
            first = bytes(await anext(blob.pieces))
            assert body.startswith(first)
            await blob.pieces.aclose()
        assert await read(store, "large") == body

    async def test_many_are_listed_once_each(self, store: BlobStore, peer: BlobStore) -> None:
        ids = [f"{number:05x}" for number in Random(3).sample(range(1 << 20), 1050)]

        async def put(some: Sequence[str]) -> None:
            for name in some:
                await store.put(name, pieces(name.encode()), {})

        await asyncio.gather(*(put(ids[start::16]) for start in range(16)))
        assert await list_ids(peer) == sorted(ids)
        for name in ids[:5]:
            await peer.delete(name)
        assert await list_ids(store) == sorted(ids[5:])
