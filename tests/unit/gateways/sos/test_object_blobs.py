"""Blobs as objects pass the suite, over drives in memory and the real rooms between."""

from collections.abc import AsyncIterator

import pytest

from holdfast.core.errors import AlreadyExists, Corrupt
from holdfast.gateways.sos.blobs import BlobStore
from holdfast.gateways.sos.object_blobs import BUCKET, ObjectBlobs
from holdfast.objects.model import PutOptions
from holdfast.testing.blob_suite import BlobSuite, pieces, read, refusal
from tests.unit.objects.world import World


@pytest.fixture
async def world() -> AsyncIterator[World]:
    opened = await World.open()
    yield opened
    await opened.close()


@pytest.fixture
async def store(world: World) -> BlobStore:
    return await ObjectBlobs.open_bucket(world.store)


@pytest.fixture
async def peer(world: World, store: BlobStore) -> BlobStore:
    return await ObjectBlobs.open_bucket(world.store)


class TestObjectBlobs(BlobSuite):
    """The suite."""


async def test_refused_and_repeated_uploads_leave_no_contents(world: World, store: BlobStore) -> None:
    await store.put("a", pieces(bytes(100_000)), {})
    await store.put("a", pieces(bytes(100_000)), {})
    await refusal(AlreadyExists, store.put("a", pieces(bytes(100_001)), {}))
    assert await world.live_contents() == 1


async def test_an_object_of_another_gateway_is_read_but_not_compared(world: World, store: BlobStore) -> None:
    await world.store.put_object(BUCKET, "s3", b"bytes", PutOptions())
    assert await read(store, "s3") == b"bytes"
    await refusal(Corrupt, store.put("s3", pieces(b"bytes"), {}))
