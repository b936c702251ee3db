"""Air put together: beside S3 in each worker, or alone as the ASGI application of any server.

`holdfast serve --air PORT` runs it in the workers; `hypercorn holdfast.cli.air:application` and its like do without
`serve`, with the settings in HOLDFAST_* variables (docs/air.md).
"""

import ssl
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from holdfast.cli.listener import Listener, check_free
from holdfast.cli.opening import OpenStore, check_ready, open_store
from holdfast.cli.settings import Settings, from_environment
from holdfast.cli.system import keep_freed_memory
from holdfast.core.errors import HoldfastError, InvalidRequest
from holdfast.gateways.air import Air, Services, parse_token

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


def read_token(settings: Settings) -> str | None:
    """The token; None when none is set. Raises InvalidRequest. Blocks."""
    path = settings.air_token_file
    if path is None:
        return None
    try:
        return parse_token(path.read_text())
    except OSError as error:
        raise InvalidRequest(f"{path}: {error.strerror}") from None
    except (InvalidRequest, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{path}: {error}") from None


def build(settings: Settings, opened: OpenStore) -> Air:
    """The application over a store that this process has open."""

    async def ready() -> None:
        await check_ready(opened)

    return Air(Services(opened.store, opened.clock, ready), read_token(settings))


def listener(settings: Settings, opened: OpenStore) -> Listener:
    """Air on a port of its own in this worker. Raises InvalidRequest. Blocks."""
    assert settings.air is not None
    host, port = settings.air
    return Listener(build(settings, opened), host, port, _tls_context(settings), opened.clock)


def check(settings: Settings) -> None:
    """Before any worker is started: what would make each of them fail. Raises InvalidRequest, Unavailable. Blocks."""
    assert settings.air is not None
    read_token(settings)
    _tls_context(settings)
    check_free(*settings.air)


def _tls_context(settings: Settings) -> ssl.SSLContext | None:
    """As S3 has it; None without TLS. Raises InvalidRequest. Blocks."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(settings.tls_cert, settings.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise InvalidRequest(f"{settings.tls_cert}: {error}") from None
    return context


_built: Air | None = None


async def application(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
    """The ASGI callable. The store is open between lifespan start-up and shut-down."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
    elif _built is None:
        raise RuntimeError("this application needs a server that speaks lifespan")
    else:
        await _built(scope, receive, send)


async def _lifespan(receive: Receive, send: Send) -> None:
    global _built  # noqa: PLW0603  one for each process
    await receive()
    try:
        keep_freed_memory()
        settings = from_environment()
        async with open_store(settings) as opened:
            _built = build(settings, opened)
            await send({"type": "lifespan.startup.complete"})
            await receive()
            _built = None
    except (HoldfastError, OSError) as error:
        await send({"type": "lifespan.startup.failed", "message": str(error)})
        return
    await send({"type": "lifespan.shutdown.complete"})
