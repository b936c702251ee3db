"""Objects whose blocks lie on drives that are away: they are not there now, which is not to say that they are gone."""

import pytest

from holdfast.core.errors import HoldfastError, NotEnoughFragments
from holdfast.core.ids import DriveId
from holdfast.core.ranges import ByteRange
from holdfast.drives.memory import MemoryDrive
from holdfast.erasure import copies
from holdfast.gateways.s3.errors import from_holdfast
from holdfast.objects.model import CopySource, PutOptions
from holdfast.placement import LayoutDrive, first_layout
from tests.unit.objects.world import World, collect

BODY = bytes(range(256)) * 400


async def test_a_client_is_never_told_that_an_object_is_gone_which_may_come_back() -> None:
    """Not even when no live layout names its drives any more, and every drive that is there says it has nothing."""
    world = await World.open(code=copies(1))
    await world.store.put_object("bucket", "key", BODY, PutOptions())
    others = {drive: MemoryDrive(drive) for drive in (DriveId(bytes([n]) * 16) for n in range(100, 106))}
    world.cluster.use([first_layout(LayoutDrive(drive, 1 << 40, "node") for drive in others)])
    away = dict(world.drives)
    world.drives.clear()
    world.drives.update(others)
    found = await world.store.open_object("bucket", "key")
    with pytest.raises(NotEnoughFragments) as refused:
        await collect(found.read())
    error: HoldfastError = refused.value
    assert from_holdfast(error).status == 503
    upload = await world.store.create_upload("bucket", "part", PutOptions())
    with pytest.raises(NotEnoughFragments):
        await world.store.copy_part(CopySource("bucket", "key"), ByteRange(1, 50_000), "bucket", "part", upload.id, 1)
    world.drives.update(away)
    assert await collect((await world.store.open_object("bucket", "key")).read()) == BODY
