"""The whole of S3's API, as botocore describes it, held against ours: what is not carried out answers 501.

So nobody is told of a lock, a grant or an encryption that did not happen, whatever a later version of S3 adds.
"""

from collections.abc import AsyncIterator
from urllib.parse import parse_qsl

import botocore.session
import pytest
from botocore.model import OperationModel

from holdfast.gateways.s3.routing import VERBS
from tests.unit.gateways.s3.asgi import Driver

_MODEL = botocore.session.get_session().get_service_model("s3")
_OURS = {verb.name: verb for verb in VERBS}

# The same request as ListBuckets, told from it by the host alone.
_TOLD_BY_HOST = {"ListDirectoryBuckets"}

# Headers that a verb carries out, or that ask for nothing: what a write keeps, what a read is conditional on, and what
# is the transfer's own matter. Every other header of an operation must be in the verb's own list.
_KEPT = {"cache-control", "content-disposition", "content-encoding", "content-language", "content-type", "expires"}
_WRITES = {"PutObject", "CopyObject", "CreateMultipartUpload"}
_READS = {"if-match", "if-modified-since", "if-none-match", "if-unmodified-since", "range"}
_TRANSFER = {"content-length", "content-md5", "x-amz-request-payer", "x-amz-expected-bucket-owner"}

# Parameters without which a request is another operation.
_NEEDED = {"uploadId": "00" * 16, "partNumber": "1"}


@pytest.fixture
async def driver() -> AsyncIterator[Driver]:
    async with Driver().running() as running:
        await running.request("PUT", "/bucket/k", body=b"abc")
        yield running


def _request(operation: OperationModel) -> tuple[str, str, list[tuple[str, str]]]:
    path, _, query = operation.http["requestUri"].partition("?")
    path = path.replace("{Bucket}", "bucket").replace("{Key+}", "k") or "/"
    fixed = parse_qsl(query, keep_blank_values=True)[:1]
    needed = [item for item in _NEEDED.items() if item[0] in _members(operation, "querystring", required=True)]
    return operation.http["method"], path, [*fixed, *needed]


def _members(operation: OperationModel, location: str, *, required: bool = False) -> set[str]:
    shape = operation.input_shape
    return {
        member.serialization.get("name", name)
        for name, member in (shape.members if shape is not None else {}).items()
        if member.serialization.get("location") == location and (not required or name in shape.required_members)
    }


async def test_operations_that_are_not_there(driver: Driver) -> None:
    missing = set(_MODEL.operation_names) - _OURS.keys() - _TOLD_BY_HOST
    assert len(missing) > 50
    for name in sorted(missing):
        method, path, query = _request(_MODEL.operation_model(name))
        assert (await driver.request(method, path, query)).status == 501, name
    assert (await driver.request("GET", "/bucket/k")).body == b"abc"


@pytest.mark.parametrize("name", sorted(_OURS.keys() & set(_MODEL.operation_names)))
async def test_what_an_operation_can_be_told(driver: Driver, name: str) -> None:
    operation, verb = _MODEL.operation_model(name), _OURS[name]
    method, path, query = _request(operation)
    source = {"x-amz-copy-source": "/bucket/k"} if "Copy" in name else {}
    understood = verb.headers | _TRANSFER
    understood |= _KEPT if name in _WRITES else _READS if name in ("GetObject", "HeadObject") else set()
    for header in {header.lower() for header in _members(operation, "header")} - {"x-amz-copy-source"}:
        answer = await driver.request(method, path, query, {**source, header: "?"})
        assert (answer.status == 501) == (header not in understood), header
    for parameter in _members(operation, "querystring") - {named for named, _ in query}:
        answer = await driver.request(method, path, [*query, (parameter, "?")], source)
        assert answer.status < 500 or answer.status == 501, parameter
        assert (answer.status == 501) == (parameter not in verb.query), parameter
