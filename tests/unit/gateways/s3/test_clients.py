"""boto3, as people have it installed, against the gateway under each ASGI server."""

import io
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import urllib3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError

from holdfast.core.limits import MIB
from holdfast.testing.s3_client import amz_date
from holdfast.testing.server import free_port, is_ready
from holdfast.testing.signing import UNSIGNED, Signer
from tests.unit.gateways.s3.serve_app import ACCESS_KEY, SECRET_KEY

_APP = "tests.unit.gateways.s3.serve_app:app"
_START_SECONDS = 120.0
SERVERS = {
    "granian": ["granian", "--interface", "asgi", "--no-ws", "--host", "127.0.0.1", "--port", "{port}", _APP],
    "uvicorn": ["uvicorn", "--host", "127.0.0.1", "--port", "{port}", "--log-level", "warning", _APP],
    "hypercorn": ["hypercorn", "--bind", "127.0.0.1:{port}", _APP],
}


@pytest.fixture(scope="module", params=list(SERVERS))
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    port = free_port()
    name, *arguments = [word.format(port=port) for word in SERVERS[request.param]]
    log = tmp_path_factory.mktemp("server") / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [Path(sys.executable).with_name(name), *arguments], stdout=output, stderr=output, start_new_session=True
        )
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not is_ready(("127.0.0.1", port)):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _client(port: int, host: str = "127.0.0.1", **config: Any) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=f"http://{host}:{port}",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        region_name="us-east-1",
        config=Config(**{"retries": {"total_max_attempts": 1}, **config}),
    )


@pytest.fixture
def client(server: int) -> Iterator[Any]:
    made = _client(server)
    yield made
    made.close()


@pytest.fixture
def bucket(client: Any, request: pytest.FixtureRequest) -> str:
    name = f"b-{abs(hash(request.node.nodeid)):x}"[:40]
    client.create_bucket(Bucket=name)
    return name


def _code(error: pytest.ExceptionInfo[ClientError]) -> str:
    return str(error.value.response["Error"]["Code"])


def test_buckets(client: Any, bucket: str) -> None:
    client.create_bucket(Bucket=bucket)
    assert bucket in [entry["Name"] for entry in client.list_buckets()["Buckets"]]
    assert client.get_bucket_location(Bucket=bucket)["LocationConstraint"] is None
    client.head_bucket(Bucket=bucket)
    client.put_object(Bucket=bucket, Key="a", Body=b"a")
    with pytest.raises(ClientError) as error:
        client.delete_bucket(Bucket=bucket)
    assert _code(error) == "BucketNotEmpty"
    client.delete_object(Bucket=bucket, Key="a")
    client.delete_bucket(Bucket=bucket)
    with pytest.raises(ClientError) as error:
        client.head_bucket(Bucket=bucket)
    assert _code(error) == "404"


@pytest.mark.parametrize(
    "key", ["plain", "a b+c&d=e?f#g%2F", "../../etc/passwd", "//x//", "ä/ü/漢字 \U0001f600", "a\x01b"]
)
def test_keys_are_kept_as_they_are(client: Any, bucket: str, key: str) -> None:
    client.put_object(Bucket=bucket, Key=key, Body=key.encode())
    assert client.get_object(Bucket=bucket, Key=key)["Body"].read() == key.encode()
    assert [entry["Key"] for entry in client.list_objects_v2(Bucket=bucket)["Contents"]] == [key]
    client.delete_object(Bucket=bucket, Key=key)
    assert "Contents" not in client.list_objects_v2(Bucket=bucket)


def test_copies(client: Any, bucket: str) -> None:
    body = bytes(range(256)) * (9 * MIB // 256)
    config = TransferConfig(multipart_threshold=5 * MIB, multipart_chunksize=5 * MIB, max_concurrency=2)
    client.put_object(Bucket=bucket, Key="a b?c", Body=body, Metadata={"m": "1"}, Tagging="t=1")
    whole = client.copy_object(Bucket=bucket, Key="whole", CopySource={"Bucket": bucket, "Key": "a b?c"})
    assert whole["CopyObjectResult"]["ETag"] == client.head_object(Bucket=bucket, Key="a b?c")["ETag"]
    client.copy({"Bucket": bucket, "Key": "a b?c"}, bucket, "in parts", Config=config)
    assert client.head_object(Bucket=bucket, Key="in parts")["ETag"].endswith('-2"')
    for key in ("whole", "in parts"):
        assert client.get_object(Bucket=bucket, Key=key)["Body"].read() == body
    assert client.get_object(Bucket=bucket, Key="whole")["Metadata"] == {"m": "1"}
    assert client.get_object_tagging(Bucket=bucket, Key="whole")["TagSet"] == [{"Key": "t", "Value": "1"}]


def test_forms(client: Any, bucket: str, server: int) -> None:
    conditions = [["content-length-range", 3, 10], ["starts-with", "$x-amz-meta-a", "1"]]
    signer = _client(server, signature_version="s3v4")
    post = signer.generate_presigned_post(bucket, "up/${filename}", Conditions=conditions)

    def send(body: bytes, **fields: str) -> int:
        form = {**post["fields"], "x-amz-meta-a": "12", **fields, "file": ("na me.txt", body)}
        return urllib3.request("POST", post["url"], fields=form, retries=False).status

    assert send(b"hello") == 204
    found = client.get_object(Bucket=bucket, Key="up/na me.txt")
    assert (found["Body"].read(), found["Metadata"]) == (b"hello", {"a": "12"})
    refused = [send(b"x" * 11), send(b"x"), send(b"abc", key="other"), send(b"abc", **{"x-amz-meta-a": "2"})]
    assert refused == [400, 400, 403, 403]


def test_tags(client: Any, bucket: str) -> None:
    tags = [{"Key": "a", "Value": "1"}, {"Key": "b", "Value": ""}]
    client.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": tags})
    assert client.get_bucket_tagging(Bucket=bucket)["TagSet"] == tags
    client.delete_bucket_tagging(Bucket=bucket)
    client.put_object(Bucket=bucket, Key="k", Body=b"")
    client.put_object_tagging(Bucket=bucket, Key="k", Tagging={"TagSet": tags})
    assert client.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == tags
    client.delete_object_tagging(Bucket=bucket, Key="k")
    assert client.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == []


@pytest.mark.parametrize("size", [0, 1, 65536, 65537, 3 * MIB + 1])
def test_put_and_get(client: Any, bucket: str, size: int) -> None:
    body = bytes(range(256)) * (size // 256 + 1)
    body = body[:size]
    put = client.put_object(
        Bucket=bucket, Key="k", Body=body, ContentType="text/x", Metadata={"a": "b"}, CacheControl="no-store"
    )
    got = client.get_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert got["Body"].read() == body
    assert got["ETag"] == put["ETag"]
    assert (got["ContentType"], got["Metadata"], got["CacheControl"]) == ("text/x", {"a": "b"}, "no-store")
    assert got["ChecksumCRC32"] == put["ChecksumCRC32"]
    head = client.head_object(Bucket=bucket, Key="k")
    assert (head["ContentLength"], head["ETag"]) == (size, put["ETag"])


def test_an_answer_without_100_continue_does_not_spoil_the_next(server: int, bucket: str) -> None:
    """An empty body and a refused one are answered without a 100; the next upload on the connection must not wait."""
    client = _client(server, max_pool_connections=1, read_timeout=30)
    for number in range(3):
        client.put_object(Bucket=bucket, Key=f"empty/{number}", Body=b"")
        client.put_object(Bucket=bucket, Key=f"full/{number}", Body=b"something")
        with pytest.raises(ClientError) as error:
            client.put_object(Bucket="no-such-bucket", Key="key", Body=b"something")
        assert _code(error) == "NoSuchBucket"
        client.put_object(Bucket=bucket, Key=f"again/{number}", Body=b"something")
    client.close()


@pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"])
def test_every_checksum(client: Any, bucket: str, algorithm: str) -> None:
    body = b"x" * 200_000
    put = client.put_object(Bucket=bucket, Key="k", Body=io.BytesIO(body), ChecksumAlgorithm=algorithm)
    head = client.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert head[f"Checksum{algorithm}"] == put[f"Checksum{algorithm}"]
    assert head["ChecksumType"] == "FULL_OBJECT"
    with pytest.raises(ClientError) as error:
        client.put_object(Bucket=bucket, Key="bad", Body=body, ChecksumSHA256="A" * 43 + "=")
    assert _code(error) == "BadDigest"
    with pytest.raises(ClientError) as error:
        client.head_object(Bucket=bucket, Key="bad")
    assert _code(error) == "404"


def test_ranges(client: Any, bucket: str) -> None:
    body = bytes(range(256)) * 1024
    client.put_object(Bucket=bucket, Key="k", Body=body)

    def get(range: str) -> bytes:
        data: bytes = client.get_object(Bucket=bucket, Key="k", Range=range)["Body"].read()
        return data

    assert get("bytes=0-0") == body[:1]
    assert get("bytes=100-") == body[100:]
    assert get("bytes=-5") == body[-5:]
    assert get("bytes=10-99999999") == body[10:]
    assert get("bytes=0-1,3-4") == body
    with pytest.raises(ClientError) as error:
        get("bytes=262144-")
    assert _code(error) == "InvalidRange"


def test_listing(client: Any, bucket: str) -> None:
    keys = [f"{letter}/{number:02}" for letter in "abc" for number in range(7)] + ["top"]
    for key in keys:
        client.put_object(Bucket=bucket, Key=key, Body=b"")
    for operation in ("list_objects_v2", "list_objects"):
        pages = client.get_paginator(operation).paginate(Bucket=bucket, PaginationConfig={"PageSize": 5})
        assert [entry["Key"] for page in pages for entry in page.get("Contents", ())] == keys
        pages = client.get_paginator(operation).paginate(Bucket=bucket, Delimiter="/", PaginationConfig={"PageSize": 2})
        assert [entry["Prefix"] for page in pages for entry in page.get("CommonPrefixes", ())] == ["a/", "b/", "c/"]
    assert client.list_objects_v2(Bucket=bucket, MaxKeys=0)["KeyCount"] == 0
    after = client.list_objects_v2(Bucket=bucket, StartAfter="c/05", FetchOwner=True)["Contents"]
    assert [entry["Key"] for entry in after] == ["c/06", "top"]
    assert after[0]["Owner"]["DisplayName"] == "holdfast"


def test_multipart(client: Any, bucket: str) -> None:
    body = bytes(range(251)) * (13 * MIB // 251)
    config = TransferConfig(multipart_threshold=5 * MIB, multipart_chunksize=5 * MIB)
    client.upload_fileobj(io.BytesIO(body), bucket, "big", Config=config)
    target = io.BytesIO()
    client.download_fileobj(bucket, "big", target, Config=config)
    assert target.getvalue() == body
    head = client.head_object(Bucket=bucket, Key="big", ChecksumMode="ENABLED")
    assert head["ETag"].endswith('-3"')
    assert head["ChecksumCRC32"].endswith("-3")
    attributes = client.get_object_attributes(
        Bucket=bucket, Key="big", ObjectAttributes=["ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"]
    )
    assert (attributes["ETag"], attributes["ObjectSize"]) == (head["ETag"].strip('"'), len(body))
    assert attributes["Checksum"] == {"ChecksumCRC32": head["ChecksumCRC32"], "ChecksumType": "COMPOSITE"}
    assert (attributes["ObjectParts"]["TotalPartsCount"], attributes["StorageClass"]) == (3, "STANDARD")
    assert sum(part["Size"] for part in attributes["ObjectParts"]["Parts"]) == attributes["ObjectSize"]
    assert all(part["ChecksumCRC32"] for part in attributes["ObjectParts"]["Parts"])
    part = client.get_object(Bucket=bucket, Key="big", PartNumber=2)
    assert part["PartsCount"] == 3
    assert part["Body"].read() == body[5 * MIB : 10 * MIB]


def test_multipart_step_by_step(client: Any, bucket: str) -> None:
    upload = client.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    part = client.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=1, Body=b"abc")
    assert [entry["Key"] for entry in client.list_multipart_uploads(Bucket=bucket)["Uploads"]] == ["k"]
    listed = client.list_parts(Bucket=bucket, Key="k", UploadId=upload)["Parts"]
    assert [(entry["PartNumber"], entry["Size"], entry["ETag"]) for entry in listed] == [(1, 3, part["ETag"])]
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    done = client.complete_multipart_upload(Bucket=bucket, Key="k", UploadId=upload, MultipartUpload=parts)
    again = client.complete_multipart_upload(Bucket=bucket, Key="k", UploadId=upload, MultipartUpload=parts)
    assert done["ETag"] == again["ETag"]
    other = client.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    client.abort_multipart_upload(Bucket=bucket, Key="k", UploadId=other)
    with pytest.raises(ClientError) as error:
        client.upload_part(Bucket=bucket, Key="k", UploadId=other, PartNumber=1, Body=b"abc")
    assert _code(error) == "NoSuchUpload"


def test_delete_many(client: Any, bucket: str) -> None:
    for number in range(3):
        client.put_object(Bucket=bucket, Key=f"k<{number}>&", Body=b"")
    answer = client.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": f"k<{number}>&"} for number in range(3)]})
    assert [entry["Key"] for entry in answer["Deleted"]] == [f"k<{number}>&" for number in range(3)]
    assert "Contents" not in client.list_objects_v2(Bucket=bucket)


def test_presigned(server: int, bucket: str) -> None:
    client = _client(server, signature_version="s3v4")
    pool = urllib3.PoolManager()
    url = client.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "p q"}, ExpiresIn=60)
    assert pool.request("PUT", url, body=b"hello").status == 200
    url = client.generate_presigned_url(
        "get_object",
        Params={"Bucket": bucket, "Key": "p q", "ResponseContentType": "text/plain"},
        ExpiresIn=60,
    )
    answer = pool.request("GET", url)
    assert (answer.status, answer.data, answer.headers["content-type"]) == (200, b"hello", "text/plain")
    assert pool.request("GET", url.replace("p%20q", "p%20r")).status == 403
    assert pool.request("GET", url.partition("?")[0]).status == 403
    pool.clear()
    client.close()


def test_virtual_host_style(server: int, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(host: Any, *arguments: Any, **named: Any) -> Any:
        return original("127.0.0.1", *arguments, **named)

    original = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    client = _client(server, host="localhost", s3={"addressing_style": "virtual"})
    client.put_object(Bucket=bucket, Key="v/k", Body=b"v")
    assert client.get_object(Bucket=bucket, Key="v/k")["Body"].read() == b"v"
    client.close()


def test_what_is_not_there_is_said(client: Any, bucket: str) -> None:
    for call, arguments in (
        (client.put_object, {"Key": "k", "Body": b"", "ServerSideEncryption": "AES256"}),
        (client.put_object, {"Key": "k", "Body": b"", "ACL": "public-read"}),
        (client.get_bucket_acl, {}),
        (client.get_bucket_policy, {}),
        (client.get_bucket_lifecycle_configuration, {}),
        (client.get_object_retention, {"Key": "k"}),
    ):
        with pytest.raises(ClientError) as error:
            call(Bucket=bucket, **arguments)
        assert _code(error) == "NotImplemented", arguments
    assert "Contents" not in client.list_objects_v2(Bucket=bucket)


def test_versions(client: Any, bucket: str) -> None:
    client.put_object(Bucket=bucket, Key="k", Body=b"old")
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    assert client.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    first = client.put_object(Bucket=bucket, Key="k", Body=b"first")["VersionId"]
    second = client.put_object(Bucket=bucket, Key="k", Body=b"second")["VersionId"]
    marker = client.delete_object(Bucket=bucket, Key="k")
    assert marker["DeleteMarker"]
    with pytest.raises(ClientError) as error:
        client.get_object(Bucket=bucket, Key="k")
    assert _code(error) == "NoSuchKey"
    headers = error.value.response["ResponseMetadata"]["HTTPHeaders"]
    assert headers["x-amz-delete-marker"] == "true"
    assert headers["x-amz-version-id"] == marker["VersionId"]
    with pytest.raises(ClientError) as error:
        client.get_object(Bucket=bucket, Key="k", VersionId=marker["VersionId"])
    assert _code(error) == "MethodNotAllowed"
    for version, body in ((first, b"first"), (second, b"second"), ("null", b"old")):
        got = client.get_object(Bucket=bucket, Key="k", VersionId=version)
        assert (got["Body"].read(), got["VersionId"]) == (body, version)
    found: list[str] = []
    for page in client.get_paginator("list_object_versions").paginate(Bucket=bucket, PaginationConfig={"PageSize": 1}):
        found += [entry["VersionId"] for entry in page.get("DeleteMarkers", []) + page.get("Versions", [])]
    assert found == [marker["VersionId"], second, first, "null"]
    client.delete_object(Bucket=bucket, Key="k", VersionId=marker["VersionId"])
    assert client.get_object(Bucket=bucket, Key="k")["Body"].read() == b"second"
    answer = client.delete_objects(
        Bucket=bucket, Delete={"Objects": [{"Key": "k", "VersionId": second}, {"Key": "other"}]}
    )
    assert answer["Deleted"][0] == {"Key": "k", "VersionId": second}
    assert answer["Deleted"][1]["DeleteMarker"]


def test_conditional_writes(client: Any, bucket: str) -> None:
    etag = client.put_object(Bucket=bucket, Key="k", Body=b"1", IfNoneMatch="*")["ETag"]
    for conditions in ({"IfNoneMatch": "*"}, {"IfMatch": '"0123"'}):
        with pytest.raises(ClientError) as error:
            client.put_object(Bucket=bucket, Key="k", Body=b"2", **conditions)
        assert _code(error) == "PreconditionFailed"
    client.put_object(Bucket=bucket, Key="k", Body=b"3", IfMatch=etag)
    assert client.get_object(Bucket=bucket, Key="k")["Body"].read() == b"3"
    with pytest.raises(ClientError) as error:
        client.put_object(Bucket=bucket, Key="none", Body=b"2", IfMatch="*")
    assert _code(error) == "NoSuchKey"
    with pytest.raises(ClientError) as error:
        client.get_object(Bucket=bucket, Key="k", IfMatch=etag)
    assert _code(error) == "PreconditionFailed"


@pytest.mark.parametrize("size", [20_000, 8 * MIB])
def test_an_upload_that_breaks_off_is_not_stored(server: int, client: Any, bucket: str, size: int) -> None:
    signer, host = Signer(ACCESS_KEY, SECRET_KEY), f"127.0.0.1:{server}"
    head = signer.sign("PUT", f"/{bucket}/k", (), {"host": host, "content-length": str(size)}, UNSIGNED, amz_date())
    lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
    with socket.create_connection(("127.0.0.1", server)) as connection:
        connection.sendall(f"PUT /{bucket}/k HTTP/1.1\r\n{lines}\r\n".encode() + b"x" * (size - 1))
        time.sleep(0.1)
    for _ in range(5):
        time.sleep(0.05)
        assert "Contents" not in client.list_objects_v2(Bucket=bucket)
