"""Somebody who uses the command line: in this process, or in one that can be killed, with a home of their own."""

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from click.testing import CliRunner

from holdfast.cli.main import main
from holdfast.testing.server import ACCESS_KEY, SECRET_KEY, Server
from tests.integration.operator import HOLDFAST


@dataclass(frozen=True, slots=True)
class Said:
    status: int
    out: str
    errors: str

    def well(self) -> "Said":
        assert self.status == 0, self
        return self

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


@dataclass
class Client:
    """The command line as one user has it."""

    server: Server
    home: Path

    def __post_init__(self) -> None:
        self.s3 = boto3.client(
            "s3", endpoint_url=self.server.endpoint, aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY,
            region_name="us-east-1", config=Config(s3={"addressing_style": "path"}),
        )  # fmt: skip

    def environment(self, changes: Mapping[str, str]) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "HOLDFAST_"))}
        return {
            **kept,
            "HOME": str(self.home),
            "XDG_STATE_HOME": str(self.home / "state"),
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_ENDPOINT_URL": self.server.endpoint,
            "AWS_CONFIG_FILE": str(self.home / "config"),
            "AWS_SHARED_CREDENTIALS_FILE": str(self.home / "credentials"),
            "AWS_EC2_METADATA_DISABLED": "true",
            **changes,
        }

    def run(self, *arguments: object, **changes: str) -> Said:
        environment: dict[str, str | None] = dict.fromkeys(name for name in os.environ if name.startswith("AWS_"))
        environment |= self.environment(changes)
        result = CliRunner().invoke(main, list(map(str, arguments)), env=environment)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        return Said(result.exit_code, result.stdout, result.stderr)

    def start(self, *arguments: object, **options: Any) -> "subprocess.Popen[bytes]":
        # As in a terminal: what a shell has put in the background ignores Ctrl-C, and so does all that it starts.
        command = ["env", "--default-signal=INT", str(HOLDFAST), *map(str, arguments)]
        return subprocess.Popen(command, env=self.environment({}), **options)

    def put(self, bucket: str, objects: Mapping[str, bytes]) -> None:
        for key, body in objects.items():
            self.s3.put_object(Bucket=bucket, Key=key, Body=body)

    def held(self, bucket: str) -> dict[str, bytes]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        keys = [entry["Key"] for page in pages for entry in page.get("Contents", ())]
        return {key: self.s3.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}
