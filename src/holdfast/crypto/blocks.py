"""Sealing blocks: compress, pad, encrypt. The format is docs/formats/seal.md.

    format 1 B | encoding 1 B | commitment 32 B | body, encrypted, a multiple of a coarse step | GCM tag 16 B

Rules.

- A key seals one block, once, and is drawn at random for it (or derived one-way from one that was): therefore the
  nonce can be fixed, and no crash, rollback or clone can make one repeat.
- The commitment is derived from the key beside the cipher's key: a sealed block opens under one key only.
- The plain length is known to whoever opens (the parent's entry says it), is authenticated, and bounds decompression.
- The body's length shows the compressed length to a coarse step. A block that does not shrink by a step at least is
  stored as it is; a full one, whose length is a power of two, then costs OVERHEAD_BYTES and nothing more.

A `BlockSealer` belongs to one thread at a time: zstd's objects and the scratch buffer are reused. That reuse is the
point: a megabyte of fresh memory costs more in page faults than its encryption (docs/adr/0006-sealing.md).
"""

import struct
from hmac import compare_digest

import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from holdfast.core.clock import Randomness
from holdfast.core.errors import Corrupt
from holdfast.core.ids import Buffer
from holdfast.core.limits import BLOCK_MAX_BYTES, KIB, SEALED_BLOCK_MAX_BYTES
from holdfast.crypto.derive import KEY_BYTES, Context, derive

FORMAT = 1
STORED = 0
ZSTD = 1

_COMMITMENT_BYTES = 32
_TAG_BYTES = 16
_BODY_START = 2 + _COMMITMENT_BYTES

OVERHEAD_BYTES = _BODY_START + _TAG_BYTES
"""What a sealed block is longer than its padded body."""

# Small blocks are the tails of objects: half a kilobyte hides their length well enough and costs less than their entry.
_STEP_MIN_BYTES = 512

# Sixteen lengths for each doubling: at most 1/16 of padding, 3 % on average, four bits of the length's logarithm told.
_STEPS_PER_DOUBLING_LOG2 = 4

# Level 3 takes two fifths longer to save a tenth more; level -5 gives up a third of the gain for a fifth of the time.
_LEVEL = 1

# zstd would take 300 us to find out that a megabyte is random; four samples tell in a twentieth of that.
_SAMPLED_FROM_BYTES = 64 * KIB
_SAMPLE_BYTES = 4 * KIB
_SAMPLES_COUNT = 4
# A sample must shrink to this share to be worth the whole: below, the padding step would eat the gain.
_SAMPLE_WORTH = 15 / 16

# Level 1 uses windows of 512 KiB; nothing we write needs more, and a decoder's memory is bounded by it.
_WINDOW_MAX_BYTES = 8 * 1024 * KIB

# The key is used once, so the nonce need not vary.
_NONCE = bytes(12)

_ASSOCIATED = struct.Struct("<BBQ")


def new_block_key(randomness: Randomness) -> bytes:
    """A key for one sealing."""
    return randomness.bytes(KEY_BYTES)


def padded_length(length: int) -> int:
    """The body's length for `length` bytes: the next multiple of a step of 1/16 to 1/32 of it, at least 512 bytes."""
    step = max(_STEP_MIN_BYTES, 1 << max(0, length.bit_length() - 1 - _STEPS_PER_DOUBLING_LOG2))
    return max(1, -(-length // step)) * step


def sealed_max_bytes(plain_length: int) -> int:
    """The longest that a block of `plain_length` bytes can become, which is what it becomes when it does not shrink."""
    return OVERHEAD_BYTES + padded_length(plain_length)


assert sealed_max_bytes(BLOCK_MAX_BYTES) <= SEALED_BLOCK_MAX_BYTES


class BlockSealer:
    """Seals and opens blocks. For one thread at a time."""

    def __init__(self) -> None:
        self._compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=False)
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW_MAX_BYTES)
        self._scratch = bytearray()

    def seal_into(self, key: bytes, plain: Buffer, out: bytearray | memoryview, *, compress: bool = True) -> int:
        """Seal `plain` (at most BLOCK_MAX_BYTES) into the start of `out`; the sealed length in bytes.

        `out` is at least `sealed_max_bytes(len(plain))` long and does not overlap `plain`. `key` was never used
        before. Releases the GIL while it compresses and encrypts.
        """
        length = len(plain)
        assert len(key) == KEY_BYTES
        assert length <= BLOCK_MAX_BYTES
        body = self._compressed(plain) if compress else None
        encoding = STORED if body is None else ZSTD
        if body is None:
            body = self._padded(plain)
        end = _BODY_START + len(body) + _TAG_BYTES
        target = memoryview(out)[:end]
        secret = derive(key, Context.BLOCK, KEY_BYTES + _COMMITMENT_BYTES)
        target[0] = FORMAT
        target[1] = encoding
        target[2:_BODY_START] = secret[KEY_BYTES:]
        associated = _ASSOCIATED.pack(FORMAT, encoding, length)
        AESGCM(secret[:KEY_BYTES]).encrypt_into(_NONCE, body, associated, target[_BODY_START:])
        return end

    def seal(self, key: bytes, plain: Buffer, *, compress: bool = True) -> bytes:
        """`seal_into` fresh bytes: for small blocks."""
        out = bytearray(sealed_max_bytes(len(plain)))
        return bytes(memoryview(out)[: self.seal_into(key, plain, out, compress=compress)])

    def open_into(self, key: bytes, sealed: Buffer, plain_length: int, out: bytearray | memoryview) -> None:
        """Open `sealed` into the first `plain_length` bytes of `out`, which does not overlap it.

        Raises Corrupt when anything but these very bytes was sealed with this key and this plain length; `out` then
        holds nothing that may be used.
        """
        encoding, body, cipher = _check(key, sealed, plain_length)
        target = memoryview(out)[:plain_length]
        assert len(target) == plain_length
        direct = _is_plain_as_it_opens(encoding, body, plain_length)
        opened = target if direct else self._scratch_view(len(body) - _TAG_BYTES)
        try:
            cipher.decrypt_into(_NONCE, body, _ASSOCIATED.pack(FORMAT, encoding, plain_length), opened)
        except InvalidTag:
            raise Corrupt("a sealed block does not open") from None
        if direct:
            return
        if encoding == STORED:
            target[:] = opened[:plain_length]
        else:
            self._decompress(opened, target)

    def open(self, key: bytes, sealed: Buffer, plain_length: int) -> bytes:
        """`open_into` fresh bytes: for small blocks, and for whoever needs bytes. Raises Corrupt."""
        encoding, body, cipher = _check(key, sealed, plain_length)
        if _is_plain_as_it_opens(encoding, body, plain_length):
            try:
                return cipher.decrypt(_NONCE, body, _ASSOCIATED.pack(FORMAT, encoding, plain_length))
            except InvalidTag:
                raise Corrupt("a sealed block does not open") from None
        out = bytearray(plain_length)
        self.open_into(key, sealed, plain_length, out)
        return bytes(out)

    def _compressed(self, plain: Buffer) -> memoryview | None:
        """The padded zstd frame, in the scratch buffer; None when it would not be a step shorter than the block."""
        limit = padded_length(len(plain)) - 1
        if limit < _STEP_MIN_BYTES or not self._worth_compressing(plain):
            return None
        scratch = self._scratch_view(limit + 1)
        with self._compressor.stream_reader(plain, size=len(plain)) as frame:
            length = _read_into(frame, scratch)
        body_length = padded_length(length)
        if body_length > limit:
            return None
        scratch[length:body_length] = bytes(body_length - length)
        return scratch[:body_length]

    def _worth_compressing(self, plain: Buffer) -> bool:
        if len(plain) < _SAMPLED_FROM_BYTES:
            return True
        view = memoryview(plain)
        stride = (len(view) - _SAMPLE_BYTES) // (_SAMPLES_COUNT - 1)
        sample = b"".join(view[at * stride : at * stride + _SAMPLE_BYTES] for at in range(_SAMPLES_COUNT))
        return len(self._compressor.compress(sample)) < len(sample) * _SAMPLE_WORTH

    def _padded(self, plain: Buffer) -> memoryview:
        length = len(plain)
        body_length = padded_length(length)
        if body_length == length:
            return memoryview(plain)
        scratch = self._scratch_view(body_length)
        scratch[:length] = plain
        scratch[length:] = bytes(body_length - length)
        return scratch

    def _decompress(self, body: memoryview, target: memoryview) -> None:
        try:
            # The frame says how long it is, the decoder holds it to that, and we stop there: padding follows it.
            if zstandard.get_frame_parameters(body).content_size != len(target):
                raise Corrupt("a sealed block decompresses to another length than its entry says")
            with self._decompressor.stream_reader(body) as frame:
                length = _read_into(frame, target)
        except zstandard.ZstdError as error:
            raise Corrupt("a sealed block does not decompress") from error
        if length != len(target):
            raise Corrupt("a sealed block decompresses to less than its frame says")

    def _scratch_view(self, length: int) -> memoryview:
        if len(self._scratch) < length:
            self._scratch = bytearray(length)
        return memoryview(self._scratch)[:length]


def _check(key: bytes, sealed: Buffer, plain_length: int) -> tuple[int, memoryview, AESGCM]:
    """Encoding, encrypted body with its tag, and cipher of a sealed block whose every clear field holds."""
    assert len(key) == KEY_BYTES
    view = memoryview(sealed)
    if not 0 <= plain_length <= BLOCK_MAX_BYTES:
        raise Corrupt(f"a block of {plain_length} bytes is longer than any")
    if len(view) < OVERHEAD_BYTES + _STEP_MIN_BYTES or view[0] != FORMAT or view[1] not in (STORED, ZSTD):
        raise Corrupt("not a sealed block, or of a format that this version does not know")
    body_length = len(view) - OVERHEAD_BYTES
    full = padded_length(plain_length)
    if body_length != full if view[1] == STORED else body_length >= full:
        raise Corrupt("a sealed block has another length than its entry allows")
    secret = derive(key, Context.BLOCK, KEY_BYTES + _COMMITMENT_BYTES)
    if not compare_digest(secret[KEY_BYTES:], view[2:_BODY_START]):
        raise Corrupt("a sealed block was sealed under another key")
    return view[1], view[_BODY_START:], AESGCM(secret[:KEY_BYTES])


def _is_plain_as_it_opens(encoding: int, body: memoryview, plain_length: int) -> bool:
    """Whether neither padding nor compression is left once `body` is decrypted."""
    return encoding == STORED and len(body) - _TAG_BYTES == plain_length


def _read_into(frame: zstandard.ZstdCompressionReader | zstandard.ZstdDecompressionReader, out: memoryview) -> int:
    """Fill `out` from `frame`; how many bytes there were, at most."""
    length = 0
    while length < len(out):
        count = frame.readinto(out[length:])
        if not count:
            break
        length += count
    return length
