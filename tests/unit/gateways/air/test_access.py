"""Who is served: the token's holder, or this machine alone."""

import pytest

from holdfast.core.errors import InvalidRequest
from holdfast.gateways.air import MissingToken, parse_token
from holdfast.gateways.air.access import check_listen, is_loopback
from tests.unit.gateways.air.asgi import Driver

TOKEN = "of-no-use-anywhere-else"


@pytest.mark.parametrize(
    ("headers", "client", "status"),
    [
        ({}, "127.0.0.1", 404),
        ({}, "::1", 404),
        ({}, "::ffff:127.0.0.1", 404),
        ({"host": "127.0.0.1"}, "127.0.0.1", 404),
        ({"host": "[::1]:9002", "origin": "http://localhost:3000"}, "127.0.0.1", 404),
        ({}, "192.0.2.1", 403),
        ({"host": "air.example"}, "127.0.0.1", 403),
        ({"host": "localhost.example"}, "127.0.0.1", 403),
        ({"host": ""}, "127.0.0.1", 403),
        ({"host": "["}, "127.0.0.1", 403),
        ({"origin": "https://example"}, "127.0.0.1", 403),
        ({"origin": "null"}, "127.0.0.1", 403),
        ({"sec-fetch-site": "cross-site"}, "127.0.0.1", 403),
    ],
)
async def test_without_a_token_this_machine_alone(headers: dict[str, str], client: str, status: int) -> None:
    async with Driver.running() as driver:
        answer = await driver.send("GET", "/get/bucket/k", headers, [{"type": "http.request"}], client=client)
        assert answer.status == status
        assert set(answer.json) == {"error", "time_taken"}


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (f"Bearer {TOKEN}", 404),
        (f"bearer  {TOKEN} ", 404),
        (f"Bearer {TOKEN}x", 401),
        ("Bearer ", 401),
        ("Bearer \xe9", 401),
        (f"Basic {TOKEN}", 401),
        (TOKEN, 401),
        ("", 401),
    ],
)
async def test_with_a_token_its_holder_alone(header: str, status: int) -> None:
    async with Driver.running(TOKEN) as driver:
        headers = {"authorization": header, "host": "air.example"}
        answer = await driver.send("GET", "/get/bucket/k", headers, [{"type": "http.request"}], client="192.0.2.1")
        assert answer.status == status
        assert ("www-authenticate" in answer.headers) == (status == 401)
        assert TOKEN not in answer.body.decode()


async def test_an_unknown_path_tells_strangers_nothing() -> None:
    async with Driver.running(TOKEN) as driver:
        assert (await driver.call("GET", "/nothing")).status == 401
        assert (await driver.call("GET", "/")).status == 200


def test_listening_to_others_needs_a_token() -> None:
    for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost"):
        check_listen(host, has_token=False)
    for host in ("0.0.0.0", "::", "192.0.2.1", "air.example"):
        assert not is_loopback(host)
        check_listen(host, has_token=True)
        with pytest.raises(MissingToken):
            check_listen(host, has_token=False)


def test_what_may_be_a_token() -> None:
    assert parse_token(f"  {TOKEN}\n") == TOKEN
    for text in ("", "short", "with a space in it", "not-ascii-é-not-ascii"):
        with pytest.raises(InvalidRequest):
            parse_token(text)
