"""An S3 endpoint, with the credentials and settings that AWS's own tools would find.

Profiles, AWS_* variables, `credential_process`, single sign-on, `ca_bundle`, `s3 =` blocks of ~/.aws/config: all of it
is botocore's doing and is left to it. What was not configured is given values that suit copying: connections for every
job, retries that back off, and no second checksum of what is checked here anyway.
"""

import difflib
import os
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import botocore.session
from botocore import exceptions as boto
from botocore.config import Config
from botocore.httpsession import get_cert_path
from botocore.parsers import ResponseParserError
from botocore.utils import get_environ_proxies
from urllib3.exceptions import HTTPError

from holdfast import __version__
from holdfast.cli.client.failures import Asked, NoSuchBucket, status_of, translated
from holdfast.cli.client.quick import Endpoint, Lane
from holdfast.core.clock import Clock
from holdfast.core.errors import HoldfastError, InvalidRequest, Unavailable
from holdfast.core.limits import MIB

# A host that drops packets is told from one that is slow; completing an upload of 10,000 parts takes a while.
CONNECT_MAX_SECONDS = 10
READ_MAX_SECONDS = 120

# First try included; with botocore's back-off about ten seconds: a server that is restarted meanwhile goes unnoticed.
ATTEMPTS_MAX_COUNT = 6

# What a body is read by.
PIECE_BYTES = 1 * MIB

# What comes up from below, beside the answers that are errors.
FOREIGN = (boto.BotoCoreError, ResponseParserError, HTTPError, ValueError)


@dataclass(frozen=True, slots=True)
class Choice:
    """What the command line says of the endpoint; "" leaves it to the environment and the profile."""

    profile: str = ""
    endpoint_url: str = ""
    region: str = ""
    jobs: int = 8
    """Requests at once."""
    patient: bool = True
    """Whether a failure is retried; completion in a shell has no time for it."""


class Connection:
    """Calls to one endpoint, from any number of threads. Raises only our errors."""

    def __init__(self, choice: Choice, clock: Clock) -> None:
        """Asks nobody anything yet. Raises InvalidRequest for what is no endpoint."""
        self.choice = choice
        self._clock = clock
        self.skew = timedelta(0)
        """How far the server's clock is ahead of this machine's, by its last answer."""
        self._answered = threading.Event()
        if choice.endpoint_url and urlsplit(choice.endpoint_url).scheme not in ("http", "https"):
            raise InvalidRequest(f"{choice.endpoint_url!r} is no endpoint: write http://HOST:PORT or https://HOST")
        self._making = threading.Lock()
        self._made: Any = None
        self._lane: Lane | None = None

    @property
    def _client(self) -> Any:
        """botocore's client, made when it is first needed: it takes a third of a second."""
        if self._made is None:
            with self._making:
                if self._made is None:
                    try:
                        self._made = self._make_client()
                    except FOREIGN as error:
                        raise translated(error, self._asked("", "", "")) from error
        return self._made

    @property
    def endpoint(self) -> str:
        """Its URL."""
        return str(self._client.meta.endpoint_url)

    @property
    def sends_checksums(self) -> bool:
        """Whether the endpoint takes checksums that are younger than Content-MD5."""
        return bool(self._client.meta.config.request_checksum_calculation != "when_required")

    def _make_client(self) -> Any:
        # botocore knows AWS_DEFAULT_REGION only; the other SDKs and aws-cli 2 know AWS_REGION, which wins there.
        core = botocore.session.Session(profile=self.choice.profile or None)
        region = self.choice.region or os.environ.get("AWS_REGION") or core.get_config_variable("region") or "us-east-1"
        core.set_config_variable("region", region)  # whoever gives out credentials is asked there too
        retries: dict[str, Any] = {"mode": "standard", "total_max_attempts": ATTEMPTS_MAX_COUNT}
        configured = [name for name in ("retry_mode", "max_attempts") if _is_configured(core, name)]
        if not self.choice.patient:
            retries["total_max_attempts"] = 1
        elif configured:
            retries = {}
        options: dict[str, Any] = {"retries": retries} if retries else {}
        config = Config(
            signature_version="s3v4",
            max_pool_connections=2 * self.choice.jobs + 2,
            connect_timeout=CONNECT_MAX_SECONDS if self.choice.patient else 1,
            read_timeout=READ_MAX_SECONDS if self.choice.patient else 2,
            tcp_keepalive=True,
            response_checksum_validation="when_required",
            user_agent=f"holdfast/{__version__}",
            **options,
        )
        self._credentials = core.get_credentials()
        client = core.create_client(
            "s3",
            region_name=region,
            endpoint_url=self.choice.endpoint_url or None,
            config=config,
        )
        client.meta.events.register_first("needs-retry.s3", self._fail_fast)
        client.meta.events.register("after-call.s3", self._note_answer)
        _remember_endpoints(client)
        self._lane = self._make_lane(client, core)
        return client

    def _make_lane(self, client: Any, core: Any) -> Lane | None:
        """None where botocore alone knows the way: through a proxy, or without credentials."""
        bundle = core.get_config_variable("ca_bundle") or get_cert_path(True)
        if self._credentials is None or get_environ_proxies(client.meta.endpoint_url) or Path(bundle).is_dir():
            return None
        region = client.meta.region_name

        def sign_link(bucket: str) -> str:
            return str(client.generate_presigned_url("get_object", {"Bucket": bucket, "Key": "k"}))

        return Lane(
            Endpoint(
                sign_link,
                self._credentials.get_frozen_credentials,
                "us-east-1" if region == "aws-global" else region,
                self.now,
                lambda: ssl.create_default_context(cafile=bundle),
                f"holdfast/{__version__}",
                READ_MAX_SECONDS,
            )
        )

    @property
    def region(self) -> str:
        return str(self._client.meta.region_name)

    def _fail_fast(self, caught_exception: Exception | None = None, **_: Any) -> None:
        """An endpoint that never answered is spelled wrong more often than it is starting."""
        wrong = boto.EndpointConnectionError, boto.SSLError, boto.ConnectTimeoutError, boto.ProxyConnectionError
        if isinstance(caught_exception, wrong) and not self._answered.is_set():
            raise caught_exception

    def _note_answer(self, http_response: Any = None, **_: Any) -> None:
        if self._answered.is_set() or http_response is None:
            return
        self._answered.set()
        try:
            theirs = parsedate_to_datetime(http_response.headers.get("Date", ""))
        except ValueError:
            return
        if theirs.tzinfo is not None:
            self.skew = theirs - self.now()

    def now(self) -> datetime:
        """This machine's time."""
        return datetime.fromtimestamp(self._clock.now_ns() / 1e9, tz=UTC)

    def wait(self, seconds: float) -> None:
        threading.Event().wait(seconds)

    def call(self, operation: str, bucket: str = "", key: str = "", **parameters: Any) -> dict[str, Any]:
        """One call, by botocore's name for it: "put_object". Raises our errors, with cause and next step."""
        if bucket:
            parameters["Bucket"] = bucket
        if key:
            parameters["Key"] = key
        try:
            answer: dict[str, Any] = getattr(self._client, operation)(**parameters)
        except boto.ClientError as error:
            raise self._explained(error, operation, bucket, key, parameters) from error
        except FOREIGN as error:
            raise translated(error, self._asked(operation, bucket, key)) from error
        return answer

    def call_small(self, operation: str, bucket: str, key: str, **parameters: Any) -> dict[str, Any]:
        """`call` of put_object and get_object for small objects, of which there may be very many."""
        # The first answer is had by botocore: it finds out what is wrong with an endpoint, and how its clock goes.
        if self._answered.is_set() and self._lane is not None:
            answer = self._lane.ask(operation, bucket, key, parameters)
            if answer is not None:
                return answer
        return self.call(operation, bucket, key, **parameters)

    def pages(self, operation: str, bucket: str = "", **parameters: Any) -> Iterator[dict[str, Any]]:
        """Every page of a listing."""
        if bucket:
            parameters["Bucket"] = bucket
        pages = iter(self._client.get_paginator(operation).paginate(**parameters))
        while True:
            try:
                page = next(pages)
            except StopIteration:
                return
            except boto.ClientError as error:
                raise self._explained(error, operation, bucket, "", parameters) from error
            except FOREIGN as error:
                raise translated(error, self._asked(operation, bucket, "")) from error
            yield page

    def presign(self, operation: str, seconds: int, **parameters: Any) -> str:
        """A link that needs no key, for so long. Asks the server nothing."""
        try:
            link: str = self._client.generate_presigned_url(operation, Params=parameters, ExpiresIn=seconds)
        except boto.BotoCoreError as error:
            raise translated(error, self._asked(operation, parameters.get("Bucket", ""), "")) from error
        return link

    def credentials_expire(self) -> datetime | None:
        """When the credentials end by themselves; None for lasting ones."""
        return getattr(self._credentials, "_expiry_time", None)

    def _explained(
        self, error: boto.ClientError, operation: str, bucket: str, key: str, parameters: dict[str, Any]
    ) -> HoldfastError:
        """A HEAD has no reason in its answer: the same question by a call that has one."""
        asked = self._asked(operation, bucket, key)
        if operation in ("head_object", "head_bucket") and status_of(error) in (400, 403, 404):
            try:
                if operation == "head_bucket":
                    self._client.list_objects_v2(Bucket=bucket, MaxKeys=1)
                else:
                    version = {name: parameters[name] for name in ("VersionId",) if name in parameters}
                    self._client.get_object(Bucket=bucket, Key=key, Range="bytes=0-0", **version)
            except boto.ClientError as reason:
                error = reason
            except boto.BotoCoreError:
                pass
        found = translated(error, asked)
        if isinstance(found, NoSuchBucket):
            return NoSuchBucket(f"{found}{self._nearest(bucket)}")
        return found

    def _nearest(self, bucket: str) -> str:
        try:
            names = [entry["Name"] for entry in self._client.list_buckets().get("Buckets", [])]
        except (boto.BotoCoreError, boto.ClientError):
            return ""
        close = difflib.get_close_matches(bucket, names, n=3, cutoff=0.5)
        if close:
            return f": did you mean {' or '.join(close)}?"
        if names:
            return f": `holdfast ls` lists the {len(names)} that are there"
        return f": there is none yet; `holdfast bucket create {bucket}` makes it"

    def _asked(self, operation: str, bucket: str, key: str) -> Asked:
        name = "".join(word.capitalize() for word in operation.split("_"))
        endpoint = self._made.meta.endpoint_url if self._made is not None else self.choice.endpoint_url
        return Asked(name, endpoint or "the S3 endpoint", self.choice.profile, bucket, key, self.now())


def _remember_endpoints(client: Any) -> None:
    """Have botocore work out an address once for a bucket, and not for each key anew: a fifth of a small request.

    It caches by all parameters that its rules declare, and declares the key, which no rule of S3 asks for.
    """
    provider = getattr(getattr(client, "_ruleset_resolver", None), "_provider", None)
    if provider is None:
        return  # another botocore, which works without
    resolve = provider.resolve_endpoint

    def resolve_without_key(**parameters: Any) -> Any:
        for name in ("Key", "Prefix", "CopySource"):
            parameters.pop(name, None)
        return resolve(**parameters)

    provider.resolve_endpoint = resolve_without_key


def _is_configured(core: Any, name: str) -> bool:
    """Whether somebody chose it: botocore's own default is "legacy" or nothing."""
    return core.get_config_variable(name) not in (None, "legacy")


def read_body(answer: dict[str, Any], piece_bytes: int = PIECE_BYTES) -> Iterator[bytes]:
    """The bytes of a GET as they come. Raises Unavailable when the connection ends before the body does."""
    body = answer["Body"]
    try:
        while piece := body.read(piece_bytes):
            yield piece
    except (boto.BotoCoreError, HTTPError, OSError) as error:
        raise Unavailable(f"the connection ended within the object: {error}") from error
    finally:
        body.close()
