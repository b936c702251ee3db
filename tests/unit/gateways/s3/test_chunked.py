"""The aws-chunked decoder: AWS's examples, any cutting of the wire, and everything that must be refused."""

import base64
from itertools import pairwise

import pytest
from awscrt import checksums as crt
from hypothesis import given
from hypothesis import strategies as st

from holdfast.gateways.s3.chunked import ChunkDecoder
from holdfast.gateways.s3.errors import S3Error
from holdfast.gateways.s3.sigv4 import STREAMING_SIGNED, STREAMING_SIGNED_TRAILER, STREAMING_UNSIGNED_TRAILER
from holdfast.objects.errors import IncompleteBody
from tests.unit.gateways.s3.signing import SIGNER, TIMESTAMP, identity

_A = b"a" * 66560
_SEED = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"
_TRAILER_SEED = "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e"
_CRC32C = frozenset(("x-amz-checksum-crc32c",))


def _wire(signatures: tuple[str, str, str], trailer: str) -> bytes:
    first, second, last = signatures
    return b"".join(
        (
            f"10000;chunk-signature={first}\r\n".encode(),
            _A[:65536],
            f"\r\n400;chunk-signature={second}\r\n".encode(),
            _A[65536:],
            f"\r\n0;chunk-signature={last}\r\n{trailer}\r\n".encode(),
        )
    )


# https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html
_SIGNED = _wire(
    (
        "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
        "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
        "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
    ),
    "",
)

# https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming-trailers.html
_TRAILER = _wire(
    (
        "b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2",
        "1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7",
        "2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992",
    ),
    "x-amz-checksum-crc32c:sOO8/Q==\r\n"
    "x-amz-trailer-signature:d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435\r\n",
)


def _signed_decoder() -> ChunkDecoder:
    return ChunkDecoder(identity(STREAMING_SIGNED, _SEED), len(_A))


def _trailer_decoder() -> ChunkDecoder:
    return ChunkDecoder(identity(STREAMING_SIGNED_TRAILER, _TRAILER_SEED), len(_A), _CRC32C)


def _decode(decoder: ChunkDecoder, *pieces: bytes) -> bytes:
    return b"".join(bytes(view) for piece in pieces for view in decoder.feed(piece))


def test_published_examples() -> None:
    decoder = _signed_decoder()
    assert _decode(decoder, _SIGNED) == _A
    assert decoder.finish() == {}
    decoder = _trailer_decoder()
    assert _decode(decoder, _TRAILER) == _A
    assert decoder.finish() == {"x-amz-checksum-crc32c": "sOO8/Q=="}
    assert base64.b64decode("sOO8/Q==") == crt.crc32c(_A).to_bytes(4)


def test_a_bare_line_feed_behind_the_trailers_is_taken_as_the_documents_print_it() -> None:
    decoder = _trailer_decoder()
    _decode(decoder, _TRAILER.replace(b"==\r\nx-amz-trailer", b"==\n\r\nx-amz-trailer"))
    assert decoder.finish() == {"x-amz-checksum-crc32c": "sOO8/Q=="}


@given(st.lists(st.integers(0, len(_TRAILER)), max_size=12))
def test_the_wire_may_be_cut_anywhere(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(_TRAILER)]
    decoder = _trailer_decoder()
    pieces = [_TRAILER[start:end] for start, end in pairwise(places)]
    assert _decode(decoder, *pieces) == _A
    decoder.finish()


@given(st.integers(0, len(_TRAILER) - 1), st.integers(0, 255))
def test_no_byte_can_be_changed(position: int, byte: int) -> None:
    """What is still accepted (a size in capitals, a space before a line's end) means the same."""
    changed = bytearray(_TRAILER)
    changed[position] = byte
    decoder = _trailer_decoder()
    try:
        data = _decode(decoder, bytes(changed))
        trailers = decoder.finish()
    except (S3Error, IncompleteBody):
        return
    assert data == _A
    assert trailers == {"x-amz-checksum-crc32c": "sOO8/Q=="}


@given(st.integers(0, len(_SIGNED) - 1))
def test_a_body_that_ends_early_is_incomplete(length: int) -> None:
    decoder = _signed_decoder()
    _decode(decoder, _SIGNED[:length])
    assert not decoder.finished
    with pytest.raises(IncompleteBody):
        decoder.finish()


def test_chunks_cannot_be_swapped_dropped_or_repeated() -> None:
    body = bytes(range(256)) * 1024
    frames = [b"".join((head, bytes(data), tail)) for head, data, tail in SIGNER.chunks(body, _SEED, TIMESTAMP)]
    good = ChunkDecoder(identity(STREAMING_SIGNED, _SEED), len(body))
    assert _decode(good, *frames) == body
    for order in ((1, 0, 2, 3, 4), (0, 0, 2, 3, 4), (0, 1, 3, 2, 4)):
        decoder = ChunkDecoder(identity(STREAMING_SIGNED, _SEED), len(body))
        with pytest.raises(S3Error) as error:
            _decode(decoder, *(frames[number] for number in order))
        assert error.value.code == "SignatureDoesNotMatch"
    with pytest.raises((S3Error, IncompleteBody)):
        _decode(ChunkDecoder(identity(STREAMING_SIGNED, _SEED), len(body)), *frames[:3], frames[4])


_UNSIGNED_GOOD = b"3\r\nabc\r\n2\r\nde\r\n0\r\nx-amz-checksum-crc32c:AAAAAA==\r\n\r\n"


def _unsigned(wire: bytes, length: int = 5, announced: frozenset[str] = _CRC32C) -> bytes:
    decoder = ChunkDecoder(identity(STREAMING_UNSIGNED_TRAILER, _SEED), length, announced)
    data = _decode(decoder, wire)
    decoder.finish()
    return data


def test_unsigned_with_trailer() -> None:
    assert _unsigned(_UNSIGNED_GOOD) == b"abcde"
    assert _unsigned(b"0\r\n\r\n", 0, frozenset()) == b""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"3\r\n", b"4\r\n"),
        (b"3\r\n", b"2\r\n"),
        (b"3\r\n", b"3\n"),
        (b"3\r\n", b"-3\r\n"),
        (b"3\r\n", b"3;x=y\r\n"),
        (b"3\r\n", b"\r\n"),
        (b"3\r\n", b"00000000000000003\r\n"),
        (b"3\r\n", b"3" + b" " * 300 + b"\r\n"),
        (b"abc\r\n", b"abcd\r\n"),
        (b"abc\r\n", b"abc\n"),
        (b"x-amz-checksum-crc32c", b"x-amz-checksum-crc32"),
        (b"x-amz-checksum-crc32c:AAAAAA==\r\n", b""),
        (b"x-amz-checksum-crc32c:AAAAAA==\r\n", b"x-amz-checksum-crc32c:AAAAAA==\r\n" * 2),
        (b"x-amz-checksum-crc32c:AAAAAA==\r\n", b"nonsense\r\n"),
        (b"AAAAAA==", b"A" * 5000),
        (b"==\r\n\r\n", b"==\r\n\r\nmore"),
        (b"==\r\n\r\n", b"==\r\n"),
        (b"2\r\nde\r\n", b""),
        (b"0\r\nx", b"1\r\nx\r\n0\r\nx"),
    ],
)
def test_malformed_bodies_are_refused(old: bytes, new: bytes) -> None:
    assert old in _UNSIGNED_GOOD
    with pytest.raises((S3Error, IncompleteBody)):
        _unsigned(_UNSIGNED_GOOD.replace(old, new, 1))


@given(st.binary(max_size=600), st.integers(0, 100), st.booleans())
def test_any_bytes_are_decoded_or_refused(wire: bytes, length: int, signed: bool) -> None:
    payload = STREAMING_SIGNED_TRAILER if signed else STREAMING_UNSIGNED_TRAILER
    decoder = ChunkDecoder(identity(payload, _SEED), length)
    try:
        data = _decode(decoder, wire)
        decoder.finish()
    except (S3Error, IncompleteBody):
        return
    assert not signed
    assert len(data) == length
