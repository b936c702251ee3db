"""Behind a proxy: what becomes of the port in Host does no harm, and the name is never taken from elsewhere."""

from collections.abc import AsyncIterator
from hashlib import sha256

import pytest

from holdfast.gateways.s3 import Settings
from tests.unit.gateways.s3.asgi import Driver


@pytest.fixture
async def driver() -> AsyncIterator[Driver]:
    async with Driver(Settings(domains=("s3.test",))).running() as running:
        await running.request("PUT", "/bucket/k", body=b"abc")
        await running.request("PUT", "/other")
        await running.request("PUT", "/other/k", body=b"other")
        yield running


async def get(driver: Driver, signed_host: str, path: str = "/bucket/k", **sent: str) -> tuple[int, bytes]:
    """A request that is signed for one Host and arrives with other headers."""
    headers = driver.sign("GET", path, (), {"host": signed_host}, sha256(b"").hexdigest())
    arrived = {name.replace("_", "-"): value for name, value in sent.items()}
    answer = await driver.send("GET", path, (), {**headers, **arrived}, ())
    return answer.status, answer.body


@pytest.mark.parametrize("name", ["s3.test", "localhost", "[::1]", "192.0.2.1"])
async def test_a_port_is_cut_off_or_added(driver: Driver, name: str) -> None:
    assert await get(driver, f"{name}:9000", host=name) == (200, b"abc")  # the test server's own port
    assert await get(driver, name, host=f"{name}:9000") == (200, b"abc")
    assert await get(driver, name, host=f"{name}:443") == (200, b"abc")
    assert await get(driver, f"{name}:8443", host=f"{name}:8443") == (200, b"abc")
    assert await get(driver, f"{name}:8443", host=name, x_forwarded_port="8443") == (200, b"abc")
    assert (await get(driver, f"{name}:8443", host=name))[0] == 403
    assert (await get(driver, f"{name}:8443", host=name, x_forwarded_port="8443, 1"))[0] == 403


async def test_buckets_in_the_host(driver: Driver) -> None:
    assert await get(driver, "bucket.s3.test:9000", "/k", host="bucket.s3.test") == (200, b"abc")
    assert await get(driver, "bucket.s3.test", "/k", host="bucket.s3.test:9000") == (200, b"abc")


async def test_the_name_is_the_one_that_was_signed(driver: Driver) -> None:
    for sent in ({}, {"x_forwarded_host": "bucket.s3.test"}, {"x_forwarded_port": "9000"}):
        assert (await get(driver, "bucket.s3.test", "/k", host="other.s3.test", **sent))[0] == 403
