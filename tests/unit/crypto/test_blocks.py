"""Sealed blocks: what goes in comes out, nothing else ever does, and lengths say little."""

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.errors import Corrupt
from holdfast.core.limits import BLOCK_MAX_BYTES, KIB, MIB, SEALED_BLOCK_MAX_BYTES
from holdfast.crypto import blocks
from holdfast.crypto.blocks import BlockSealer, new_block_key, padded_length, sealed_max_bytes
from tests.unit.crypto import reference
from tests.unit.crypto.chance import FixedRandomness

KEY = bytes(range(32))
TEXT = b"".join(b"%d bottles of beer on the wall, " % number for number in range(40_000))


def noise(count: int) -> bytes:
    return FixedRandomness("noise").bytes(count)


@pytest.fixture
def sealer() -> BlockSealer:
    return BlockSealer()


def plain_blocks() -> st.SearchStrategy[bytes]:
    lengths = st.one_of(st.integers(0, 3000), st.sampled_from([64 * KIB - 1, 64 * KIB, 200_000, MIB - 1, MIB]))
    sources = st.sampled_from([TEXT, noise(MIB), bytes(MIB)])
    return st.builds(
        lambda source, length, start: (source[start:] + source)[:length], sources, lengths, st.integers(0, 99)
    )


@given(plain_blocks(), st.booleans())
def test_round_trip(plain: bytes, compress: bool) -> None:
    sealer = BlockSealer()
    sealed = sealer.seal(KEY, plain, compress=compress)
    assert len(sealed) <= sealed_max_bytes(len(plain))
    assert sealer.open(KEY, sealed, len(plain)) == plain


def test_the_largest_block_of_each_kind(sealer: BlockSealer) -> None:
    for plain in (noise(BLOCK_MAX_BYTES), (TEXT * 4)[:BLOCK_MAX_BYTES]):
        assert sealer.open(KEY, sealer.seal(KEY, plain), len(plain)) == plain


def test_padding_holds_nothing_of_earlier_blocks(sealer: BlockSealer) -> None:
    sealer.seal(KEY, noise(MIB - 1))
    for plain in (TEXT[:5000], noise(700)):
        assert reference.open_block(KEY, sealer.seal(KEY, plain), len(plain)) == plain


def test_one_sealer_for_many_blocks_in_any_order(sealer: BlockSealer) -> None:
    plains = [noise(MIB), TEXT[:MIB], b"", noise(700) + TEXT[:300_000], bytes(MIB), TEXT[:5]]
    sealed = [sealer.seal(bytes([at]) * 32, plain) for at, plain in enumerate(plains)]
    for at, plain in reversed(list(enumerate(plains))):
        assert sealer.open(bytes([at]) * 32, sealed[at], len(plain)) == plain


def test_into_a_larger_buffer_touches_only_its_share(sealer: BlockSealer) -> None:
    plain = TEXT[:100_000]
    out = bytearray(b"\xee" * 200_000)
    length = sealer.seal_into(KEY, memoryview(plain), memoryview(out))
    assert out[length:] == b"\xee" * (200_000 - length)
    back = bytearray(b"\xee" * 200_000)
    sealer.open_into(KEY, memoryview(out)[:length], len(plain), back)
    assert back[: len(plain)] == plain
    assert back[len(plain) :] == b"\xee" * 100_000


@pytest.mark.parametrize("length", [512, 700, MIB, MIB + 512])
@pytest.mark.parametrize("compress", [True, False])
def test_bytes_and_a_buffer_are_opened_alike(sealer: BlockSealer, length: int, compress: bool) -> None:
    for plain in (noise(length), TEXT[:length]):
        sealed = bytearray(sealer.seal(KEY, plain, compress=compress))
        back = bytearray(length)
        sealer.open_into(KEY, sealed, length, back)
        assert back == sealer.open(KEY, sealed, length) == plain
        sealed[-1] ^= 1
        with pytest.raises(Corrupt):
            sealer.open_into(KEY, sealed, length, back)
        with pytest.raises(Corrupt):
            sealer.open(KEY, sealed, length)


@pytest.mark.parametrize("length", [4 * KIB, 64 * KIB, MIB, 4 * MIB])
def test_a_full_block_of_noise_costs_the_overhead_only(sealer: BlockSealer, length: int) -> None:
    assert len(sealer.seal(KEY, noise(length))) == length + blocks.OVERHEAD_BYTES


def test_what_shrinks_is_compressed(sealer: BlockSealer) -> None:
    assert len(sealer.seal(KEY, TEXT[:MIB])) < MIB // 3
    assert len(sealer.seal(KEY, bytes(MIB))) == 512 + blocks.OVERHEAD_BYTES


def test_a_block_that_begins_random_and_goes_on_compressible_is_compressed(sealer: BlockSealer) -> None:
    plain = noise(400 * KIB) + bytes(MIB - 400 * KIB)
    assert len(sealer.seal(KEY, plain)) < 450 * KIB


@given(st.integers(0, SEALED_BLOCK_MAX_BYTES))
def test_padding_is_coarse_small_and_stable(length: int) -> None:
    body = padded_length(length)
    assert body >= length
    assert body - length <= max(512, length // 16)
    assert padded_length(body) == body
    assert body % 512 == 0


def test_there_are_few_lengths() -> None:
    assert len({padded_length(length) for length in range(0, MIB + 1, 64)}) <= 16 + 7 * 16


def test_the_largest_block_fits() -> None:
    assert sealed_max_bytes(BLOCK_MAX_BYTES) <= SEALED_BLOCK_MAX_BYTES


def test_lengths_of_one_step_seal_to_one_length(sealer: BlockSealer) -> None:
    assert len({len(sealer.seal(KEY, noise(length))) for length in range(1, 512)}) == 1


@pytest.mark.parametrize("plain", [b"", TEXT[:400], TEXT[:2000], noise(1024)], ids=["empty", "short", "zstd", "stored"])
def test_every_flipped_byte_is_caught(sealer: BlockSealer, plain: bytes) -> None:
    sealed = sealer.seal(KEY, plain)
    for at in range(len(sealed)):
        for mask in (0x01, 0x80, 0xFF):
            broken = bytearray(sealed)
            broken[at] ^= mask
            with pytest.raises(Corrupt):
                sealer.open(KEY, broken, len(plain))


@pytest.mark.parametrize("plain", [TEXT[:2000], noise(1024)], ids=["zstd", "stored"])
def test_every_cut_and_extension_is_caught(sealer: BlockSealer, plain: bytes) -> None:
    sealed = sealer.seal(KEY, plain)
    cuts = [sealed[:at] for at in range(len(sealed))] + [sealed[at:] for at in range(1, len(sealed))]
    for broken in [*cuts, sealed + b"\0", sealed + bytes(512), b"\0" + sealed, sealed + sealed]:
        with pytest.raises(Corrupt):
            sealer.open(KEY, broken, len(plain))


def test_another_key_or_plain_length_is_caught(sealer: BlockSealer) -> None:
    for plain in (TEXT[:2000], noise(1000)):
        sealed = sealer.seal(KEY, plain)
        with pytest.raises(Corrupt):
            sealer.open(bytes(32), sealed, len(plain))
        for length in (-1, 0, len(plain) - 1, len(plain) + 1, len(plain) * 2, BLOCK_MAX_BYTES, 2**63):
            if length <= BLOCK_MAX_BYTES:
                with pytest.raises(Corrupt):
                    sealer.open(KEY, sealed, max(0, length)) if length >= 0 else blocks._check(KEY, sealed, length)


def test_parts_of_two_blocks_do_not_mix(sealer: BlockSealer) -> None:
    one, two = sealer.seal(KEY, noise(1024)), sealer.seal(bytes(32), noise(1024))
    for cut in (1, 2, 34, 500, len(one) - 16):
        with pytest.raises(Corrupt):
            sealer.open(KEY, one[:cut] + two[cut:], 1024)


def test_a_bomb_does_not_go_off(sealer: BlockSealer) -> None:
    """An owner's own key holder is the only one who could build it; memory is bounded all the same."""
    plain = b"x" * 1000
    for content in (bytes(50 * MIB), b"x" * 999, b"x" * 1001):
        bomb = zstandard.ZstdCompressor().compress(content)

        class Rigged(BlockSealer):
            def _compressed(self, plain: object, bomb: bytes = bomb) -> memoryview:
                return memoryview(bomb + bytes(padded_length(len(bomb)) - len(bomb)))

        if padded_length(len(bomb)) < padded_length(len(plain)):
            sealed = bytearray(10_000)
            length = Rigged().seal_into(KEY, plain, sealed)
            with pytest.raises(Corrupt):
                sealer.open(KEY, sealed[:length], len(plain))


def test_a_frame_of_noise_under_the_right_key_is_corrupt(sealer: BlockSealer) -> None:
    class Rigged(BlockSealer):
        def _compressed(self, plain: object) -> memoryview:
            return memoryview(noise(512))

    sealed = bytearray(10_000)
    length = Rigged().seal_into(KEY, b"x" * 1000, sealed)
    with pytest.raises(Corrupt):
        sealer.open(KEY, sealed[:length], 1000)


@pytest.mark.parametrize("kind", ["_padded", "_compressed"])
def test_a_body_of_another_length_than_the_format_gives_is_corrupt(sealer: BlockSealer, kind: str) -> None:
    """Under the right key, with the right plain length, by a writer that pads as it likes."""
    plain = b"x" * 1000
    frame = zstandard.ZstdCompressor().compress(plain)
    bodies = {"_padded": plain + bytes(1024 + 512 - 1000), "_compressed": frame + bytes(1024 - len(frame))}
    rigged = type("Rigged", (BlockSealer,), {kind: lambda self, plain: memoryview(bodies[kind])})()
    sealed = bytearray(10_000)
    length = rigged.seal_into(KEY, plain, sealed, compress=kind == "_compressed")
    with pytest.raises(Corrupt):
        sealer.open(KEY, sealed[:length], len(plain))


def test_keys_are_drawn_from_chance() -> None:
    chance = FixedRandomness("keys")
    assert len({new_block_key(chance) for _ in range(100)}) == 100


def test_two_sealings_under_two_keys_share_nothing(sealer: BlockSealer) -> None:
    chance = FixedRandomness("keys")
    one, two = (sealer.seal(new_block_key(chance), bytes(512), compress=False) for _ in range(2))
    assert sum(a == b for a, b in zip(one[2:], two[2:], strict=True)) < 20
