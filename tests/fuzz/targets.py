"""What is fuzzed by coverage: parsers that bytes from outside reach, each with bytes that lead it far.

A target takes any bytes. It reads them or refuses them with one of our errors; anything else that it raises is a bug.
What has but one encoding must come out of it the same.
"""

import json
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.cli.settings import parse_duration, parse_listen
from holdfast.core.errors import HoldfastError
from holdfast.core.ids import StoreId
from holdfast.crypto.backup import read_backup
from holdfast.crypto.blocks import BlockSealer
from holdfast.crypto.kek import decode_kek_file, passphrase_parameters
from holdfast.crypto.keyring import decode_keyring
from holdfast.drives.identity import decode_identity
from holdfast.erasure import decode_commitment
from holdfast.gateways.air import form as air
from holdfast.gateways.air.errors import AirError
from holdfast.gateways.s3 import conditions, form, xml
from holdfast.gateways.s3.call import split_path, split_query
from holdfast.gateways.s3.chunked import ChunkDecoder
from holdfast.gateways.s3.copies import parse_source
from holdfast.gateways.s3.errors import S3Error
from holdfast.gateways.s3.list_objects import _open_token
from holdfast.gateways.s3.policy import parse_policy
from holdfast.gateways.s3.sigv4 import STREAMING_SIGNED_TRAILER, STREAMING_UNSIGNED_TRAILER, SignedRequest
from holdfast.gateways.s3.tagging import parse_document, parse_header
from holdfast.gateways.sos.batch import decode_blobs, decode_ids
from holdfast.gateways.sos.chunks import ChunkList
from holdfast.meta.local.checkpoint import decode_block
from holdfast.meta.local.log import decode_payload, decode_position, decode_record, genesis
from holdfast.meta.local.witness import decode_witness
from holdfast.objects.listing import _decode_resume
from holdfast.objects.tags import check_tags
from holdfast.placement import decode_layout, encode_layout
from holdfast.tree.entry import Link, decode_link, decode_root, encode_link, encode_root
from holdfast.tree.node import Node, seal_node
from tests.unit.drives.test_formats import PARSERS as DRIVE_PARSERS
from tests.unit.gateways.s3.signing import identity
from tests.unit.gateways.s3.test_sigv4 import _EXAMPLES, _PRESIGNED, _verify
from tests.unit.objects.test_rows import VALUES
from tests.unit.tree.test_node import KEY, children, plain_of

VECTORS = Path(__file__).parents[1] / "vectors"

REFUSALS = (HoldfastError, S3Error, AirError)

Take = Callable[[bytes], object]


@dataclass(frozen=True, slots=True)
class Target:
    """A parser, and bytes to begin with."""

    take: Take
    seeds: tuple[bytes, ...]

    def __call__(self, data: bytes) -> None:
        try:
            self.take(data)
        except REFUSALS:
            return


def vector(name: str, *keys: str | int) -> bytes:
    """Golden bytes."""
    found: Any = json.loads((VECTORS / f"{name}.json").read_text())
    for key in keys:
        found = found[key]
    return bytes.fromhex(found)


def of_text(take: Callable[[str], object]) -> Take:
    """What a header holds: any byte is a character."""
    return lambda data: take(data.decode("latin-1"))


def same_again(decode: Callable[[bytes], Any], encode: Callable[[Any], bytes]) -> Take:
    def take(data: bytes) -> None:
        assert encode(decode(data)) == data

    return take


def each(*takes: Take) -> Take:
    """The same bytes for several parsers, whichever refuse them."""
    targets = [Target(take, ()) for take in takes]

    def take(data: bytes) -> None:
        for target in targets:
            target(data)

    return take


def finish(work: Coroutine[Any, Any, object]) -> None:
    """Run what never waits."""
    try:
        work.send(None)
    except StopIteration:
        return
    raise AssertionError("it waits")


async def in_pieces(data: bytes) -> AsyncIterator[bytes]:
    """The first byte says how long the pieces are."""
    length = 1 + data[0] if data else 1
    for start in range(1, len(data), length):
        yield data[start : start + length]


def take_authorization(data: bytes) -> None:
    head, _, query = data.partition(b"\n")
    headers = {**_EXAMPLES["get"].headers, "authorization": head.decode("latin-1")}
    for sent in (SignedRequest("GET", b"/" + query, [], headers), SignedRequest("GET", b"/", split_query(query), {})):
        Target(lambda _, sent=sent: _accepted(sent), ())(b"")  # type: ignore[misc]


def _accepted(request: SignedRequest) -> None:
    _verify(request)
    raise AssertionError("a signature was made up")


def take_chunked(data: bytes) -> None:
    for payload in (STREAMING_SIGNED_TRAILER, STREAMING_UNSIGNED_TRAILER):
        decoder = ChunkDecoder(identity(payload, "0" * 64), 5, frozenset(("x-amz-checksum-crc32c",)))
        try:
            found = b"".join(map(bytes, decoder.feed(data)))
            decoder.finish()
        except REFUSALS:
            continue
        assert payload == STREAMING_UNSIGNED_TRAILER
        assert len(found) == 5


def take_form(data: bytes) -> None:
    async def read() -> None:
        opened = form.Form(in_pieces(data), b"xYx")
        await opened.head()
        async for _ in opened.file():
            pass

    finish(read())


def take_air_form(data: bytes) -> None:
    async def read() -> None:
        opened = air.Form(in_pieces(data), b"xYx")
        await opened.open("file")
        async for _ in opened.file():
            pass

    finish(read())


def take_policy(data: bytes) -> None:
    policy = parse_policy(data.decode("latin-1"))
    policy.check({"key": "k", "bucket": "b"}, 0)


def take_range(data: bytes) -> None:
    found = conditions.parse_range(data.decode("latin-1"), 10)
    assert found is None or 0 <= found.start < found.end <= 10


def take_conditions(data: bytes) -> None:
    text = data.decode("latin-1")
    for name in ("if-match", "if-none-match", "if-modified-since", "if-unmodified-since"):
        Target(lambda _, name=name: conditions.check_read({name: text}, "e", 10), ())(b"")  # type: ignore[misc]
    conditions.range_applies({"if-range": text}, "e", 10)


def take_boundary(data: bytes) -> None:
    text = "multipart/form-data; " + data.decode("latin-1")
    for found in (form.boundary_of(text), air.boundary_of(text)):
        assert found is None or 1 <= len(found) <= 70


FORM = (
    b'\x05--xYx\r\nContent-Disposition: form-data; name="key"\r\n\r\nk\r\n'
    b'--xYx\r\nContent-Disposition: form-data; name="file"; filename="f"\r\nContent-Type: a/b\r\n\r\nabc\r\n--xYx--\r\n'
)
POLICY = (
    b"eyJleHBpcmF0aW9uIjoiMjEwMC0wMS0wMVQwMDowMDowMFoiLCJjb25kaXRpb25zIjpbeyJidWNrZXQiOiJiIn0sWyJzdGFydHMtd2l0aCIs"
    b"IiRrZXkiLCIiXSxbImNvbnRlbnQtbGVuZ3RoLXJhbmdlIiwwLDldXX0="
)
AUTHORIZATION = _EXAMPLES["get"].headers["authorization"].encode()
QUERY = "&".join(f"{name}={value}" for name, value in _PRESIGNED.query).encode()

BEGINNING = genesis(StoreId(bytes(range(16))))
LINK = encode_link(Link(decode_root(vector("entry", "entry")), b"some group")).encode()

TARGETS = {
    "SigV4": Target(take_authorization, (AUTHORIZATION + b"\n" + QUERY,)),
    "path and query": Target(
        each(split_query, lambda data: split_path(b"/" + data, "")), (b"bucket/key%20a?list-type=2&prefix=%C3%A4",)
    ),
    "aws-chunked": Target(
        take_chunked,
        (
            b"3\r\nabc\r\n2\r\nde\r\n0\r\nx-amz-checksum-crc32c:AAAAAA==\r\n\r\n",
            b"5;chunk-signature=" + b"0" * 64 + b"\r\nabcde\r\n0;chunk-signature=" + b"0" * 64 + b"\r\n\r\n",
        ),
    ),
    "XML": Target(
        lambda data: xml.parse(data, "Delete"),
        (b'<?xml version="1.0"?><Delete xmlns="x"><Object><Key>a&amp;b</Key></Object><Quiet>true</Quiet></Delete>',),
    ),
    "tags": Target(
        each(parse_document, of_text(lambda text: check_tags(parse_header(text), 10))),
        (b"<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>", b"a=b&c=%20d"),
    ),
    "POST form": Target(take_form, (FORM,)),
    "POST policy": Target(take_policy, (POLICY,)),
    "air's form": Target(take_air_form, (FORM,)),
    "boundary": Target(take_boundary, (b'boundary="a b"', b"x=y; boundary=abc")),
    "copy source": Target(of_text(parse_source), (b"/bucket/key%20a?versionId=7", b"bucket/key?versionId=null")),
    "range": Target(take_range, (b"bytes=0-3", b"bytes=-3", b"bytes=5-")),
    "conditions": Target(take_conditions, (b'"e", W/"f", *', b"Thu, 01 Jan 1970 00:00:10 GMT")),
    "continuation token": Target(of_text(lambda text: _decode_resume(_open_token(text))), (b"MDA=",)),
    "sos batch": Target(each(decode_blobs, decode_ids), (b"\x91\x92\xa1a\xc4\x01b", b"\x92\xa1a\xa1b")),
    "sos chunk list": Target(
        lambda data: ChunkList.decode(data, "86f7e437faa5a7fce15d1ddcb9eaeaea377667b8"),
        (json.loads((VECTORS / "chunk-list.json").read_text())[0]["list"].encode(),),
    ),
    "rows": Target(
        each(*(type(row).decode for row in VALUES.values())), tuple(row.encode() for row in VALUES.values())
    ),
    "metadata log": Target(
        each(decode_payload, decode_block, decode_position, lambda data: decode_record(data, BEGINNING)),
        (vector("log", "parts", 0, "hex"), vector("checkpoint", "parts", 0, "hex")),
    ),
    "witness": Target(decode_witness, (vector("witness", "parts", 0, "hex"),)),
    "layout": Target(same_again(decode_layout, encode_layout), (vector("layout", "cases", 0, "layout"),)),
    "keyring": Target(decode_keyring, (vector("keyring", "document"),)),
    "key files": Target(
        each(decode_kek_file, passphrase_parameters, read_backup), (b"holdfast key\n", b"holdfast keyring\n")
    ),
    "drive": Target(lambda data: decode_identity(data, Path("d")), (vector("identity", "identity"),)),
    "fragment records": Target(
        each(*(parse for _, parse in DRIVE_PARSERS.values())), tuple(good for good, _ in DRIVE_PARSERS.values())
    ),
    "commitment": Target(
        same_again(decode_commitment, lambda found: found.encode()), (vector("commitment", "cases", 0, "commitment"),)
    ),
    "entry": Target(same_again(decode_root, encode_root), (vector("entry", "entry"),)),
    "link": Target(of_text(decode_link), (LINK,)),
    "inner node": Target(Node, (plain_of(seal_node(BlockSealer(), KEY, children(1, [5, 6]))),)),
    "settings": Target(
        each(of_text(parse_duration), of_text(parse_listen)), (b"1.5h", b"[::1]:9000", b"127.0.0.1:9000")
    ),
}  # fmt: skip
