"""Real clients, as people have them installed, on an ordinary day.

Each mirrors a tree of files, does so again when little has changed, lists 10,000 keys, gives a link away, uploads in
parts, and deletes. What they were told is where the server is and with which key: all else is their default.
"""

import asyncio
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aioboto3
import boto3
import duckdb
import pyarrow as pa  # type: ignore[import-untyped]
import pytest
import s3fs  # type: ignore[import-untyped]
import urllib3
from boto3.s3.transfer import TransferConfig
from pyarrow import dataset, fs

from holdfast.core.limits import MIB
from holdfast.testing.server import ACCESS_KEY, SECRET_KEY
from tests.integration.clients import (
    FULL_BUCKET,
    FULL_COUNT,
    FULL_KEYS,
    LARGE_BYTES,
    Site,
    contents,
    fetch,
    make_tree,
    running,
)

# aiohttp's advice to aiobotocore about its own calls.
pytestmark = pytest.mark.filterwarnings("ignore:Sending a large body directly")

PARTS = TransferConfig(multipart_threshold=5 * MIB, multipart_chunksize=5 * MIB)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(tmp_path_factory.mktemp("clients")) as site:
        yield site


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "tree")


@pytest.fixture
def bucket(site: Site, request: pytest.FixtureRequest) -> str:
    name = request.node.name.replace("_", "-")
    boto(site).create_bucket(Bucket=name)
    return str(name)


def boto(site: Site) -> Any:
    return boto3.client("s3", **options(site))


def options(site: Site) -> dict[str, str]:
    return {
        "endpoint_url": site.endpoint,
        "aws_access_key_id": ACCESS_KEY,
        "aws_secret_access_key": SECRET_KEY,
        "region_name": "us-east-1",
    }


def keys(site: Site, bucket: str) -> list[str]:
    return [entry["Key"] for entry in boto(site).list_objects_v2(Bucket=bucket).get("Contents", [])]


def test_boto3(site: Site, bucket: str, tree: Path) -> None:
    s3 = boto(site)
    for name in contents(tree):
        s3.upload_file(str(tree / name), bucket, name, Config=PARTS)
    large = s3.head_object(Bucket=bucket, Key="large.bin", ChecksumMode="ENABLED")
    assert large["ETag"].endswith('-3"')
    assert "ChecksumCRC32" in large  # boto3 adds it by itself, in a trailer
    for name in contents(tree):
        target = tree.parent / "back" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        s3.download_file(bucket, name, str(target), Config=PARTS)
    assert contents(tree.parent / "back") == contents(tree)

    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=FULL_BUCKET)
    assert [entry["Key"] for page in pages for entry in page["Contents"]] == sorted(FULL_KEYS)
    folders = s3.list_objects_v2(Bucket=FULL_BUCKET, Delimiter="/")["CommonPrefixes"]
    assert [folder["Prefix"] for folder in folders] == [f"year={year}/" for year in range(2000, 2005)]

    url = s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "readme.txt"})
    assert fetch(url) == (200, (tree / "readme.txt").read_bytes())
    assert fetch(url.replace("readme.txt", "empty"))[0] == 403
    post = s3.generate_presigned_post(bucket, "from a form")
    fields = {**post["fields"], "file": ("name", b"formed")}
    assert urllib3.request("POST", post["url"], fields=fields, retries=False).status == 204

    listed = s3.list_objects_v2(Bucket=bucket)["Contents"]
    gone = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": entry["Key"]} for entry in listed]})
    assert len(gone["Deleted"]) == len(contents(tree)) + 1
    s3.delete_bucket(Bucket=bucket)


def test_boto3_resumes_an_upload(site: Site, bucket: str, tree: Path) -> None:
    s3, body = boto(site), (tree / "large.bin").read_bytes()
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    s3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=1, Body=body[: 5 * MIB])
    # Another process, some time later.
    s3 = boto(site)
    (found,) = s3.list_multipart_uploads(Bucket=bucket)["Uploads"]
    parts = s3.list_parts(Bucket=bucket, Key="k", UploadId=found["UploadId"])["Parts"]
    done = [{"PartNumber": part["PartNumber"], "ETag": part["ETag"]} for part in parts]
    rest = s3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=2, Body=body[5 * MIB :])
    done.append({"PartNumber": 2, "ETag": rest["ETag"]})
    complete = {"Bucket": bucket, "Key": "k", "UploadId": upload, "MultipartUpload": {"Parts": done}}
    assert s3.complete_multipart_upload(**complete)["ETag"] == s3.complete_multipart_upload(**complete)["ETag"]
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == body


async def test_aioboto3(site: Site, bucket: str, tree: Path) -> None:
    async with aioboto3.Session().client("s3", **options(site)) as s3:
        await asyncio.gather(*(s3.upload_file(str(tree / name), bucket, name, Config=PARTS) for name in contents(tree)))
        for name in contents(tree):
            into = io.BytesIO()
            await s3.download_fileobj(bucket, name, into)
            assert into.getvalue() == (tree / name).read_bytes()
        listed = [
            entry["Key"]
            async for page in s3.get_paginator("list_objects_v2").paginate(Bucket=FULL_BUCKET)
            for entry in page["Contents"]
        ]
        assert listed == sorted(FULL_KEYS)
        url = await s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "readme.txt"})
        status, _ = await asyncio.to_thread(fetch, url)
        assert status == 200
        await s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": name} for name in contents(tree)]})
    assert keys(site, bucket) == []


def test_aws_cli(site: Site, bucket: str, tree: Path) -> None:
    aws = site.run
    up = ("aws", "s3", "sync", tree, f"s3://{bucket}/mirror", "--no-progress")
    assert aws(*up).count("upload:") == len(contents(tree))
    (tree / "readme.txt").write_bytes(b"another length")
    (again,) = aws(*up).splitlines()
    assert again.endswith(f"to s3://{bucket}/mirror/readme.txt")
    aws("aws", "s3", "sync", f"s3://{bucket}/mirror", tree.parent / "back", "--no-progress")
    assert contents(tree.parent / "back") == contents(tree)
    assert len(aws("aws", "s3", "ls", "--recursive", f"s3://{FULL_BUCKET}").splitlines()) == FULL_COUNT
    url = aws("aws", "s3", "presign", f"s3://{bucket}/mirror/readme.txt", "--expires-in", "60").strip()
    assert fetch(url) == (200, b"another length")
    assert '"PartsCount": 2' in aws("aws", "s3api", "head-object", "--bucket", bucket, "--key", "mirror/large.bin")
    aws("aws", "s3", "mv", f"s3://{bucket}/mirror/empty", f"s3://{bucket}/moved")
    assert "moved" in keys(site, bucket)
    aws("aws", "s3", "rb", "--force", f"s3://{bucket}")


def test_s3cmd(site: Site, bucket: str, tree: Path) -> None:
    host = site.endpoint.removeprefix("http://")
    lines = {
        "access_key": ACCESS_KEY,
        "secret_key": SECRET_KEY,
        "host_base": host,
        "host_bucket": host,
        "use_https": "False",
        "multipart_chunk_size_mb": "5",
    }
    config = site.home / "s3cfg"
    config.write_text("[default]\n" + "".join(f"{name} = {value}\n" for name, value in lines.items()))

    def s3cmd(*arguments: object) -> str:
        return site.run("s3cmd", "-c", config, "--no-progress", *arguments)

    target = f"s3://{bucket}/mirror/"
    assert s3cmd("sync", f"{tree}/", target).count("upload:") >= len(contents(tree))
    (tree / "readme.txt").write_bytes(b"another length")
    again = [line for line in s3cmd("sync", f"{tree}/", target).splitlines() if line.startswith("upload:")]
    assert len(again) == 1
    s3cmd("sync", target, f"{tree.parent}/back/")
    assert contents(tree.parent / "back") == contents(tree)
    assert len(s3cmd("ls", "-r", f"s3://{FULL_BUCKET}").splitlines()) == FULL_COUNT
    assert fetch(s3cmd("signurl", f"{target}readme.txt", "+60").strip()) == (200, b"another length")
    assert f"{LARGE_BYTES}" in s3cmd("info", f"{target}large.bin")
    s3cmd("del", "-r", "-f", target)
    assert keys(site, bucket) == []


def test_s5cmd(site: Site, bucket: str, tree: Path) -> None:
    target = f"s3://{bucket}/mirror/"
    assert len(site.run("s5cmd", "sync", f"{tree}/", target).splitlines()) == len(contents(tree))
    (tree / "readme.txt").write_bytes(b"another length")
    assert len(site.run("s5cmd", "sync", f"{tree}/", target).splitlines()) == 1
    site.run("s5cmd", "cp", "--part-size", "5", tree / "large.bin", f"s3://{bucket}/in parts")
    site.run("s5cmd", "cp", f"{target}*", f"{tree.parent}/back/")
    assert contents(tree.parent / "back") == contents(tree)
    assert len(site.run("s5cmd", "ls", f"s3://{FULL_BUCKET}/*").splitlines()) == FULL_COUNT
    url = site.run("s5cmd", "presign", "--expire", "1m", f"{target}readme.txt").strip()
    assert fetch(url) == (200, b"another length")
    site.run("s5cmd", "rm", f"s3://{bucket}/*")
    assert keys(site, bucket) == []
    site.run("s5cmd", "rb", f"s3://{bucket}")


def filesystem(site: Site) -> s3fs.S3FileSystem:
    return s3fs.S3FileSystem(
        key=ACCESS_KEY,
        secret=SECRET_KEY,
        endpoint_url=site.endpoint,
        default_block_size=5 * MIB,
        skip_instance_cache=True,
    )


def test_s3fs(site: Site, bucket: str, tree: Path) -> None:
    files = filesystem(site)
    files.put(f"{tree}/", f"{bucket}/mirror/", recursive=True)
    files.get(f"{bucket}/mirror/", str(tree.parent / "back"), recursive=True)
    assert contents(tree.parent / "back") == contents(tree)
    assert len(files.find(FULL_BUCKET)) == FULL_COUNT
    assert files.ls(f"{FULL_BUCKET}/year=2000")[0].endswith("00000")
    assert files.du(f"{bucket}/mirror/photos") == 370_000
    with files.open(f"{bucket}/streamed", "wb") as stream:
        for start in range(0, LARGE_BYTES, MIB):
            stream.write((tree / "large.bin").read_bytes()[start : start + MIB])
    with files.open(f"{bucket}/streamed", "rb") as stream:
        stream.seek(7 * MIB)
        assert stream.read(1000) == (tree / "large.bin").read_bytes()[7 * MIB : 7 * MIB + 1000]
    files.mv(f"{bucket}/streamed", f"{bucket}/moved")
    assert fetch(files.url(f"{bucket}/mirror/readme.txt", expires=60)) == (200, (tree / "readme.txt").read_bytes())
    files.rm(bucket, recursive=True)
    assert not files.exists(bucket)


def test_pyarrow(site: Site, bucket: str, tree: Path) -> None:
    host = site.endpoint.removeprefix("http://")
    files = fs.S3FileSystem(
        access_key=ACCESS_KEY, secret_key=SECRET_KEY, endpoint_override=host, scheme="http", region="us-east-1"
    )
    local = fs.LocalFileSystem()
    fs.copy_files(
        str(tree), f"{bucket}/mirror", source_filesystem=local, destination_filesystem=files, chunk_size=5 * MIB
    )
    fs.copy_files(f"{bucket}/mirror", str(tree.parent / "back"), source_filesystem=files, destination_filesystem=local)
    assert contents(tree.parent / "back") == contents(tree)
    found = files.get_file_info(fs.FileSelector(FULL_BUCKET, recursive=True))
    assert sum(info.is_file for info in found) == FULL_COUNT
    table = pa.table({"n": list(range(1000)), "part": [n % 4 for n in range(1000)]})
    dataset.write_dataset(
        table, f"{bucket}/data", filesystem=files, format="parquet", partitioning=["part"], partitioning_flavor="hive"
    )
    data = dataset.dataset(f"{bucket}/data", filesystem=files, format="parquet", partitioning="hive")
    assert data.to_table(filter=dataset.field("part") == 3).num_rows == 250
    with files.open_input_file(f"{bucket}/mirror/large.bin") as stream:
        assert stream.read_at(1000, 7 * MIB) == (tree / "large.bin").read_bytes()[7 * MIB : 7 * MIB + 1000]
    files.delete_dir(f"{bucket}/mirror")
    files.delete_dir_contents(bucket)
    assert keys(site, bucket) == []


def test_duckdb(site: Site, bucket: str) -> None:
    database = duckdb.connect()
    files = filesystem(site)
    database.register_filesystem(files)
    database.execute(
        "CREATE TABLE t AS SELECT range AS n, range % 3 AS part, md5(range::text) AS text FROM range(200000)"
    )
    database.execute(f"COPY t TO 's3://{bucket}/one.parquet' (FORMAT parquet, COMPRESSION uncompressed)")
    database.execute(f"COPY (SELECT * FROM t WHERE part = 1) TO 's3://{bucket}/more/1.csv'")
    database.execute(f"COPY (SELECT * FROM t WHERE part = 2) TO 's3://{bucket}/more/2.csv'")
    assert files.info(f"{bucket}/one.parquet")["ETag"].count("-") == 1  # it was uploaded in parts
    assert database.sql(f"SELECT sum(n) FROM 's3://{bucket}/one.parquet'").fetchall() == [(199999 * 100000,)]
    assert database.sql(f"SELECT count(*) FROM read_csv('s3://{bucket}/more/*.csv')").fetchall() == [(133333,)]
    counted = database.sql(f"SELECT count(*) FROM glob('s3://{FULL_BUCKET}/year=2003/*')").fetchall()
    assert counted == [(FULL_COUNT // 5,)]
    files.rm(bucket, recursive=True)
