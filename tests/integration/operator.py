"""The operator's hand in the proofs: commands on a server's store, and objects that are compared bit for bit."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError, HTTPClientError

from holdfast.testing.server import ACCESS_KEY, SECRET_KEY, Server

HOLDFAST = Path(sys.executable).with_name("holdfast")

# A command that hangs fails its test rather than the whole run.
COMMAND_MAX_SECONDS = 300

HEALTHY_MAX_SECONDS = 180.0

# A store that lacks drives for the moment.
_BUSY = frozenset({503})


def command(server: Server, *arguments: object, environment: Mapping[str, str] | None = None) -> "Said":
    """Run `holdfast ...` on the server's store; DIR... are left to the environment."""
    drives = ":".join(str(path) for path in server.directories)
    done = subprocess.run(
        [*server.inside, HOLDFAST, *map(str, arguments)],
        env={**server.environment(), "HOLDFAST_DRIVES": drives, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=COMMAND_MAX_SECONDS,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Said(done.returncode, done.stdout, done.stderr)


def delete(directory: Path) -> None:
    """As `rm -r` does it: a running server may put something there meanwhile."""
    while directory.exists():
        shutil.rmtree(directory, ignore_errors=True)


def wait_healthy(server: Server) -> None:
    """Until `status` finds nothing to do. What a reader met just before is written down a moment later, and repaired
    by the server itself."""
    deadline = time.monotonic() + HEALTHY_MAX_SECONDS
    while (said := command(server, "status")).status:
        assert time.monotonic() < deadline, said.out
        time.sleep(0.3)


@dataclass(frozen=True, slots=True)
class Said:
    """What a command said."""

    status: int
    out: str
    errors: str

    @property
    def document(self) -> dict[str, Any]:
        document = json.loads(self.out)
        assert isinstance(document, dict)
        return document

    def well(self) -> "Said":
        """Itself, if all was well."""
        assert self.status == 0, f"status {self.status}\n{self.out}\n{self.errors}"
        return self


@dataclass
class Objects:
    """Objects through boto3, and what they must be."""

    server: Server
    bucket: str = "proof"
    kept: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.s3 = boto3.client(
            "s3",
            endpoint_url=self.server.endpoint,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            region_name="us-east-1",
            config=Config(retries={"max_attempts": 1}, s3={"addressing_style": "path"}),
        )
        self.s3.create_bucket(Bucket=self.bucket)

    def put(self, count: int, *, sizes: tuple[int, ...] = (100, 70_000, 3_000_000)) -> None:
        """So many objects more: in a row, in one block, in several."""
        for number in range(len(self.kept), len(self.kept) + count):
            body = Random(number).randbytes(sizes[number % len(sizes)])
            self.s3.put_object(Bucket=self.bucket, Key=f"key-{number}", Body=body)
            self.kept[f"key-{number}"] = body

    def check(self) -> None:
        """Everything is there, bit for bit."""
        listed = [entry["Key"] for entry in self.s3.list_objects_v2(Bucket=self.bucket).get("Contents", [])]
        assert listed == sorted(self.kept)
        for key, body in self.kept.items():
            assert self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read() == body, key


def until_served(call: Callable[[], None], *, seconds: float = 60.0, waited_out: frozenset[int] = _BUSY) -> None:
    """Call again while nobody answers, or with a status that is `waited_out`: drives and workers come and go meanwhile.
    Any other answer is final."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            call()
        except HTTPClientError:
            if time.monotonic() > deadline:
                raise
        except ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            if status not in waited_out or time.monotonic() > deadline:
                raise
        else:
            return
        time.sleep(0.2)
