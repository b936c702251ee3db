"""Conditions on every kind of write, by 64 clients at once against two workers: one wins, whatever it does."""

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from holdfast.testing.s3_client import S3Client
from tests.integration.conftest import StartServer

RACERS = 64
TURNS = 2

Headers = dict[str, str]

ABORTED_MAX_SECONDS = 30.0


def put(s3: S3Client, number: int, condition: Headers) -> int:
    return s3.put("bucket", "k", f"put {number}".encode(), condition).status


def copy(s3: S3Client, number: int, condition: Headers) -> int:
    return s3.put("bucket", "k", b"", {"x-amz-copy-source": "/bucket/source", **condition}).status


def complete(s3: S3Client, number: int, condition: Headers) -> int:
    """The part was uploaded by `prepare`; only the last step races."""
    upload, etag = UPLOADS[number]
    document = f"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part>"
    body = f"{document}</CompleteMultipartUpload>".encode()
    return s3.request("POST", "/bucket/k", [("uploadId", upload)], condition, body).status


def delete(s3: S3Client, number: int, condition: Headers) -> int:
    return s3.request("DELETE", "/bucket/k", (), condition).status


def delete_many(s3: S3Client, number: int, condition: Headers) -> int:
    etag = condition["if-match"].strip('"')
    document = f"<Delete><Object><Key>k</Key><ETag>{etag}</ETag></Object></Delete>".encode()
    answer = s3.request("POST", "/bucket", [("delete", "")], {}, document)
    return 200 if b"<Deleted>" in answer.body else 412


UPLOADS: dict[int, tuple[str, str]] = {}

REPLACING = {"put": put, "copy": copy, "complete": complete, "delete": delete, "delete many": delete_many}
MAKING = {"put": put, "copy": copy, "complete": complete}


def prepare(s3: S3Client, number: int) -> None:
    """An upload that lacks only its completion."""
    begun = s3.request("POST", "/bucket/k", [("uploads", "")]).body.decode()
    upload = begun.partition("<UploadId>")[2].partition("</UploadId>")[0]
    query = [("partNumber", "1"), ("uploadId", upload)]
    UPLOADS[number] = upload, s3.request("PUT", "/bucket/k", query, body=b"part").headers["etag"]


@pytest.mark.parametrize("made", [True, False], ids=["If-Match", "If-None-Match"])
def test_one_of_64_wins(start_server: StartServer, made: bool) -> None:
    server = start_server(1, workers=2, options=("--sync", "relaxed"))
    writes = list((REPLACING if made else MAKING).items())
    clients = [server.client() for _ in range(RACERS)]
    first = clients[0]
    first.make_bucket("bucket")
    first.put("bucket", "source", b"copied")
    winners: Counter[str] = Counter()
    with ThreadPoolExecutor(RACERS) as threads:
        for turn in range(TURNS):
            for number in range(RACERS):
                if writes[(number + turn) % len(writes)][0] == "complete":
                    prepare(first, number)
            first.delete("bucket", "k")
            etag = first.put("bucket", "k", f"turn {turn}".encode()).headers["etag"] if made else ""
            condition = {"if-match": etag} if made else {"if-none-match": "*"}
            start = threading.Barrier(RACERS)

            def race(number: int) -> tuple[str, int]:
                name, write = writes[(number + turn) % len(writes)]  # noqa: B023  the turn is over before it changes
                start.wait()  # noqa: B023
                return name, write(clients[number], number, condition)  # noqa: B023

            results = list(threads.map(race, range(RACERS)))
            won = [name for name, status in results if status in (200, 204)]
            assert len(won) == 1, results
            assert {status for _, status in results if status not in (200, 204)} <= {412, 404}, results
            winners.update(won)
    print(f"winners: {dict(winners)}")
    for client in clients:
        client.close()


def test_uploads_that_nobody_completes_are_aborted_when_it_is_set(start_server: StartServer) -> None:
    server = start_server(1, workers=1, options=("--upload-age", "3s"))
    with server.client() as s3:
        s3.make_bucket("bucket")
        began = time.monotonic()
        prepare(s3, 0)
        while b"<Upload>" in s3.request("GET", "/bucket", [("uploads", "")]).body:
            assert time.monotonic() - began < ABORTED_MAX_SECONDS
            time.sleep(0.1)
        assert time.monotonic() - began > 2.9
        assert complete(s3, 0, {}) == 404
