"""The S3 gateway as a plain ASGI application: lifespan, health, and for each request: check, route, serve, answer.

Rules. The application keeps nothing between requests but counters; everything else belongs to the services that the
lifespan opened. No answer is begun before its status is certain; once a body is on its way, an error can only break
the connection, so that a short answer is never taken for a whole one. A client that is gone is not answered, and what
it was uploading is not stored.
"""

import base64
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from itertools import count

from holdfast.asgi.errors import ClientGone
from holdfast.asgi.messages import Receive, Scope, Send
from holdfast.asgi.sending import Sender
from holdfast.core.clock import Clock, Randomness
from holdfast.core.errors import HoldfastError
from holdfast.core.ids import Buffer
from holdfast.gateways.s3 import checksums, sigv2, xml
from holdfast.gateways.s3.access_log import AccessLog
from holdfast.gateways.s3.body import Body
from holdfast.gateways.s3.call import (
    RESERVED_BUCKET,
    XML_TYPE,
    Answer,
    Call,
    Header,
    is_bucket_name,
    split_path,
    split_query,
)
from holdfast.gateways.s3.chunked import ChunkDecoder
from holdfast.gateways.s3.errors import STATUS, S3Error, from_holdfast
from holdfast.gateways.s3.metrics import Metrics
from holdfast.gateways.s3.post_object import FormCall, is_form, open_form
from holdfast.gateways.s3.routing import POST_OBJECT, Verb, check_headers, route
from holdfast.gateways.s3.settings import Services, Settings
from holdfast.gateways.s3.sigv4 import STREAMING, UNSIGNED_PAYLOAD, Identity, SignedRequest, access_of, verify
from holdfast.objects.access import Access

Application = Callable[[Scope, Receive, Send], Awaitable[None]]
OpenServices = Callable[[], AbstractAsyncContextManager[Services]]

CLIENT_GONE_STATUS = 499
"""What the access log and the metrics say of a request whose client left; it was answered nothing."""

_HEALTH = f"/{RESERVED_BUCKET}/".encode()
_LOGGER = logging.getLogger(__name__)
_REQUEST_ID_BYTES = 4
_HOST_ID_BYTES = 48


def create_app(
    open_services: OpenServices,
    *,
    clock: Clock,
    randomness: Randomness,
    settings: Settings | None = None,
    metrics: Metrics | None = None,
    access_log: AccessLog | None = None,
) -> Application:
    """The application. `open_services` is entered at lifespan start-up in each worker, and left at shut-down."""
    return Gateway(open_services, clock, randomness, settings or Settings(), metrics or Metrics(), access_log)


class Gateway:
    """The ASGI callable."""

    def __init__(
        self,
        open_services: OpenServices,
        clock: Clock,
        randomness: Randomness,
        settings: Settings,
        metrics: Metrics,
        access_log: AccessLog | None,
    ) -> None:
        self._open_services = open_services
        self._clock = clock
        self._settings = settings
        self._metrics = metrics
        self._access_log = access_log
        self._services: Services | None = None
        self._process_id = randomness.bytes(_REQUEST_ID_BYTES).hex().upper()
        self._host_id = base64.b64encode(randomness.bytes(_HOST_ID_BYTES))
        self._requests = count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await _Exchange(self, scope, receive, send).run()
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            raise NotImplementedError(f"no {scope['type']} here")

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        """Start-up and shut-down. A start that fails is told to the server, which then does not serve."""
        await receive()
        try:
            manager = self._open_services()
            self._services = await manager.__aenter__()
        except (HoldfastError, OSError) as error:
            _LOGGER.exception("the store could not be opened")
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self._services = None
        await manager.__aexit__(None, None, None)
        await send({"type": "lifespan.shutdown.complete"})

    @property
    def clock(self) -> Clock:
        return self._clock

    @property
    def settings(self) -> Settings:
        return self._settings

    @property
    def metrics(self) -> Metrics:
        return self._metrics

    @property
    def access_log(self) -> AccessLog | None:
        return self._access_log

    @property
    def host_id(self) -> bytes:
        return self._host_id

    @property
    def services(self) -> Services:
        if self._services is None:
            raise S3Error("ServiceUnavailable", "The server is starting or stopping.")
        return self._services

    def next_request_id(self) -> str:
        """Sixteen characters; unique, since each process draws the first eight."""
        return f"{self._process_id}{next(self._requests) & 0xFFFFFFFF:08X}"


class _Exchange:
    """One request and its answer."""

    __slots__ = (
        "_access_key", "_app", "_bucket", "_checked", "_error", "_key", "_receive", "_scope", "_sender",
        "_started", "_verb", "body", "headers", "request_id",
    )  # fmt: skip

    def __init__(self, app: Gateway, scope: Scope, receive: Receive, send: Send) -> None:
        self._app = app
        self._scope = scope
        self._receive = receive
        self._sender = Sender(receive, send)
        self._started = app.clock.monotonic()
        self._checked = 0.0
        self._bucket = self._key = ""
        self._access_key = ""
        self._verb: Verb | None = None
        self._error: str | None = None
        self.request_id = app.next_request_id()
        headers: dict[str, str] = {}
        for raw_name, raw_value in scope["headers"]:
            name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
            headers[name] = f"{headers[name]},{value}" if name in headers else value
        self.headers = headers
        self.body = Body(receive, None)

    async def run(self) -> None:
        """Serve, answer, count."""
        status = CLIENT_GONE_STATUS
        self._app.metrics.begin()
        try:
            answer = await self._answer()
            status = await self._deliver(answer)
        except ClientGone:
            self._error = "ClientGone"
        except HoldfastError:
            # The answer broke off half-way: the server closes the connection, and the client sees that it is short.
            status = STATUS["InternalError"]
            raise
        finally:
            self._count(status)

    async def _answer(self) -> Answer:
        """The answer; every error is one, but ClientGone."""
        try:
            return await self._serve()
        except ClientGone:
            raise
        except S3Error as error:
            failure = error
        except HoldfastError as error:
            failure = from_holdfast(error)
            if failure.status >= 500:
                _LOGGER.warning("request %s failed: %s: %s", self.request_id, error.code, error)
        except Exception:  # the top of a request: whatever it is, the client gets an answer
            _LOGGER.exception("request %s failed", self.request_id)
            failure = from_holdfast(HoldfastError())
        self._error = failure.code
        await self._drain()
        return self._failed(failure)

    async def _serve(self) -> Answer:
        scope, app = self._scope, self._app
        path: bytes = scope.get("raw_path") or scope["path"].encode()
        if not path.startswith(b"/"):
            path = _absolute_path(path)
        host = self.headers.get("host", "")
        host_bucket = _host_bucket(host, app.settings.domains)
        if path.startswith(_HEALTH) and not host_bucket:
            return await self._health(path)
        services = app.services
        self.body = Body(self._receive, _content_length(self.headers))
        method = scope["method"]
        pairs = split_query(scope["query_string"])
        now_ns = app.clock.now_ns()
        if not host:
            raise S3Error("InvalidRequest", "Missing required header for this request: Host")
        if not pairs and method == "POST" and "authorization" not in self.headers:
            form = await self._open_form(services, path, host_bucket, now_ns)
            if form is not None:
                return await POST_OBJECT.serve(form)
        hosts = _other_hosts(host, scope.get("server"), self.headers.get("x-forwarded-port", ""))
        signed = SignedRequest(method, path, pairs, self.headers, hosts, host_bucket)
        identity = verify(signed, services.credentials, app.settings.region, now_ns / 1e9)
        self._access_key = identity.access_key
        self._bucket, self._key = split_path(path, host_bucket)
        query = self._take_query(pairs, version_2=identity.version_2)
        self._verb = verb = route(method, self._bucket, self._key, query, self.headers)
        access = access_of(services.credentials, identity.access_key)
        if verb.needs is not None:
            access.require(self._bucket, verb.needs)
        check_headers(verb, method, self.headers, app.settings)
        self._expect_body(identity)
        self._checked = app.clock.monotonic()
        call = Call(
            services.store,
            app.settings,
            method,
            self._bucket,
            self._key,
            query,
            self.headers,
            self.body,
            now_ns,
            access,
        )
        return await verb.serve(call)

    async def _open_form(self, services: Services, path: bytes, host_bucket: str, now_ns: int) -> FormCall | None:
        """A form upload, its signature and its policy checked; None when the request is none."""
        settings = self._app.settings
        self._bucket, self._key = split_path(path, host_bucket)
        call = Call(
            services.store,
            settings,
            "POST",
            self._bucket,
            self._key,
            {},
            self.headers,
            self.body,
            now_ns,
            _NOBODY,
        )
        if not is_form(call):
            return None
        self._verb = POST_OBJECT
        if not is_bucket_name(self._bucket):
            raise S3Error("NoSuchBucket", "The specified bucket does not exist", details={"BucketName": self._bucket})
        check_headers(POST_OBJECT, "POST", self.headers, settings)
        form = await open_form(call, services.credentials)
        self._key, self._access_key = form.key, form.access_key
        check_headers(POST_OBJECT, "POST", form.headers, settings)
        self._checked = self._app.clock.monotonic()
        return form

    def _take_query(self, pairs: list[tuple[str, str]], *, version_2: bool) -> dict[str, str]:
        """The parameters by name, the first of each; those that stand for headers join the headers.

        Presigned URLs carry signed `x-amz-*` headers in their query, those of version 2 others too.
        """
        query: dict[str, str] = {}
        for name, value in pairs:
            lower = name.lower()
            if lower.startswith("x-amz-") or (version_2 and lower in sigv2.HEADERS):
                if lower not in _SIGNATURE_PARAMETERS:
                    self.headers.setdefault(lower, value)
            elif version_2 and name in sigv2.QUERY_FIELDS:
                continue
            else:
                query.setdefault(name, value)
            if not value.isascii() and any("\udc80" <= character <= "\udcff" for character in value):
                raise S3Error("InvalidURI", "Couldn't parse the specified URI.")
        return query

    def _expect_body(self, identity: Identity) -> None:
        """Tell the body what the signature says of it."""
        payload = identity.payload
        if payload in STREAMING:
            length = _number(self.headers.get("x-amz-decoded-content-length"), "x-amz-decoded-content-length")
            if length is None:
                raise S3Error("MissingContentLength", "You must provide the x-amz-decoded-content-length HTTP header.")
            trailers = checksums.announced_trailers(self.headers)
            self.body.expect(decoder=ChunkDecoder(identity, length, trailers), length=length, sha256=None)
        elif payload != UNSIGNED_PAYLOAD:
            self.body.expect(decoder=None, length=None, sha256=bytes.fromhex(payload))

    async def _health(self, path: bytes) -> Answer:
        if self._scope["method"] not in ("GET", "HEAD"):
            raise S3Error("MethodNotAllowed", "The specified method is not allowed against this resource.")
        if path == b"/health/live":
            return Answer(200, [_TEXT_TYPE], b"live\n")
        if path == b"/health/ready":
            await self._app.services.ready()
            return Answer(200, [_TEXT_TYPE], b"ready\n")
        raise S3Error("NoSuchKey", "The specified key does not exist.")

    async def _drain(self) -> None:
        """Take in the rest of a refused body when it is short and on its way already."""
        if self.body.wire_length or "transfer-encoding" in self.headers:
            await self.body.drain(waiting="expect" in self.headers)

    def _failed(self, error: S3Error) -> Answer:
        """The error document; S3 sends none for HEAD, nor with 304."""
        headers = [*error.headers]
        if error.status == 304:
            headers = [header for header in headers if header[0] not in (b"content-length", b"content-type")]
            return Answer(304, headers)
        if self._scope["method"] == "HEAD":
            return Answer(error.status, headers)
        parts = [xml.element("Code", error.code), xml.element("Message", error.message)]
        details = dict(error.details)
        if error.code == "NoSuchKey":
            details.setdefault("Key", self._key)
        elif error.code == "NoSuchBucket":
            details.setdefault("BucketName", self._bucket)
        parts += [xml.element(name, value) for name, value in details.items()]
        parts += (
            xml.element("Resource", self._scope["path"]),
            xml.element("RequestId", self.request_id),
            xml.element("HostId", self._app.host_id.decode("ascii")),
        )
        return Answer(error.status, [*headers, XML_TYPE], xml.document("Error", parts, namespace=False))

    async def _deliver(self, answer: Answer) -> int:
        """Send it. The status that the client saw."""
        headers = answer.headers
        headers += (
            (b"x-amz-request-id", self.request_id.encode("ascii")),
            (b"x-amz-id-2", self._app.host_id),
            (b"server-timing", self._timing()),
        )
        if "expect" in self.headers and not self.body.received:
            # The client asked to be told to go on, and never was. Some (botocore) take the next answer on this
            # connection for the rest of this one, and wait for ever.
            headers.append((b"connection", b"close"))
        status = answer.status
        if status not in (204, 304) and not answer.has_length:
            headers.append((b"content-length", str(len(answer.body)).encode("ascii")))
        if answer.stream is None:
            await self._sender.start(status, headers)
            await self._sender.end(b"" if self._scope["method"] == "HEAD" else answer.body)
            return status
        await self._sender.start(status, headers)
        return await self._deliver_stream(answer.body, answer.stream, status)

    async def _deliver_stream(self, first: bytes, stream: AsyncIterator[Buffer], status: int) -> int:
        """Send pieces as the reader has them, while the client is there."""
        try:
            await self._sender.stream(first, stream)
        except ClientGone:
            self._error = "ClientGone"
            return CLIENT_GONE_STATUS
        except HoldfastError as error:
            self._error = error.code
            _LOGGER.warning("request %s broke off: %s: %s", self.request_id, error.code, error)
            raise
        return status

    def _timing(self) -> bytes:
        """Server-Timing, in milliseconds: the check of the request, and all until the answer begins."""
        total = (self._app.clock.monotonic() - self._started) * 1000
        if not self._checked:
            return b"total;dur=%.3f" % total
        return b"check;dur=%.3f, total;dur=%.3f" % ((self._checked - self._started) * 1000, total)

    def _count(self, status: int) -> None:
        app, scope = self._app, self._scope
        seconds = app.clock.monotonic() - self._started
        verb = self._verb.name if self._verb is not None else ""
        app.metrics.end(verb, status, seconds, self.body.received, self._sender.sent)
        if app.access_log is not None:
            client = scope.get("client")
            app.access_log.write(
                time_ns=app.clock.now_ns(),
                request_id=self.request_id,
                remote=client[0] if client else "",
                access_key=self._access_key,
                verb=verb,
                method=scope["method"],
                path=(scope.get("raw_path") or b"").decode("latin-1"),
                query=scope["query_string"].decode("latin-1"),
                status=status,
                error=self._error,
                received_bytes=self.body.received,
                sent_bytes=self._sender.sent,
                seconds=seconds,
                user_agent=self.headers.get("user-agent", ""),
            )


# A form whose signature is still to be read.
_NOBODY = Access()

_TEXT_TYPE: Header = (b"content-type", b"text/plain; charset=utf-8")

_SIGNATURE_PARAMETERS = frozenset(
    (
        "x-amz-algorithm",
        "x-amz-content-sha256",
        "x-amz-credential",
        "x-amz-date",
        "x-amz-expires",
        "x-amz-security-token",
        "x-amz-signature",
        "x-amz-signedheaders",
    )
)


def _absolute_path(target: bytes) -> bytes:
    """The path of a request target in absolute form, "http://host/path"; anything else is no path."""
    scheme, separator, rest = target.partition(b"://")
    if not separator or scheme not in (b"http", b"https"):
        raise S3Error("InvalidURI", "Couldn't parse the specified URI.")
    return b"/" + rest.partition(b"/")[2]


def _content_length(headers: dict[str, str]) -> int | None:
    if "transfer-encoding" in headers:
        return None
    return _number(headers.get("content-length"), "Content-Length")


def _number(text: str | None, name: str) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > 19:
        raise S3Error("InvalidArgument", f"{name} is not a number", details={"ArgumentName": name})
    return int(text)


def _without_port(host: str) -> str:
    name, separator, port = host.rpartition(":")
    return name if separator and port.isdigit() and not name.endswith(":") else host


def _host_bucket(host: str, domains: tuple[str, ...]) -> str:
    """The bucket that the host names; "" in path style."""
    if not domains:
        return ""
    name = _without_port(host).lower()
    for domain in domains:
        if name.endswith(f".{domain}"):
            return name[: -len(domain) - 1]
    return ""


def _other_hosts(host: str, server: tuple[str, int | None] | None, forwarded_port: str) -> tuple[str, ...]:
    """How else the client may have written the host it signed: a proxy may cut our port or its own off, or add one.

    The name must be the one that came: it says which bucket is meant.
    """
    bare = _without_port(host)
    if bare != host:
        return (bare,)
    ports = [str(server[1])] if server is not None and server[1] else []
    if forwarded_port.isdigit():
        ports.append(forwarded_port)
    return tuple(f"{host}:{port}" for port in ports)
