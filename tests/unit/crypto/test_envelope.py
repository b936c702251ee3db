"""Envelopes: bound to their place, their epoch and their use; every change is caught."""

import threading
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.errors import Corrupt
from holdfast.crypto import envelope
from holdfast.crypto.derive import Context
from holdfast.crypto.envelope import EnvelopeOpener, EnvelopeSealer, UnknownEpoch, epoch_of, rewrap
from tests.unit.crypto.chance import FixedRandomness

KEYS = {1: bytes(range(32)), 2: bytes(range(1, 33))}
MESSAGE = b"a row's value, about as long as a short one"
PLACE = b"Obucket-key"


def sealer(epoch: int = 1, seed: str = "") -> EnvelopeSealer:
    return EnvelopeSealer(epoch, KEYS[epoch], Context.ROW, FixedRandomness(seed))


OPENER = EnvelopeOpener(KEYS, Context.ROW)


@given(st.binary(max_size=5000), st.binary(max_size=1100), st.sampled_from([1, 2]))
def test_round_trip(message: bytes, place: bytes, epoch: int) -> None:
    sealed = sealer(epoch).seal(message, place)
    assert len(sealed) == len(message) + envelope.OVERHEAD_BYTES
    assert epoch_of(sealed) == epoch
    assert OPENER.open(sealed, place) == OPENER.open(memoryview(sealed), place) == message


@pytest.mark.parametrize("message", [b"", MESSAGE])
def test_every_flipped_bit_cut_and_extension_is_caught(message: bytes) -> None:
    sealed = sealer().seal(message, PLACE)
    for at in range(len(sealed)):
        for bit in range(8):
            broken = bytearray(sealed)
            broken[at] ^= 1 << bit
            with pytest.raises(Corrupt):
                OPENER.open(broken, PLACE)
    for broken_ in [*(sealed[:at] for at in range(len(sealed))), sealed + b"\0", b"\0" + sealed, sealed[1:]]:
        with pytest.raises(Corrupt):
            OPENER.open(broken_, PLACE)


def test_moved_to_another_place_it_does_not_open() -> None:
    sealed = sealer().seal(MESSAGE, PLACE)
    for place in (b"", PLACE[:-1], PLACE + b"\0", b"Vbucket-key"):
        with pytest.raises(Corrupt):
            OPENER.open(sealed, place)


def test_every_field_swapped_with_that_of_another_envelope_is_caught() -> None:
    one, two = sealer(seed="one").seal(MESSAGE, PLACE), sealer(2, seed="two").seal(MESSAGE, PLACE)
    fields = [0, 1, 5, 21, 37, 49, len(one) - 16, len(one)]
    for start, end in pairwise(fields):
        mixed = one[:start] + two[start:end] + one[end:]
        if mixed != one:
            with pytest.raises(Corrupt):
                OPENER.open(mixed, PLACE)


def test_for_another_use_it_does_not_open() -> None:
    sealed = sealer().seal(MESSAGE, PLACE)
    for context in set(Context) - {Context.ROW}:
        with pytest.raises(Corrupt):
            EnvelopeOpener(KEYS, context).open(sealed, PLACE)


def test_an_epoch_that_is_not_at_hand_is_told_apart() -> None:
    sealed = sealer(2).seal(MESSAGE, PLACE)
    with pytest.raises(UnknownEpoch):
        EnvelopeOpener({1: KEYS[1]}, Context.ROW).open(sealed, PLACE)
    with pytest.raises(Corrupt):
        EnvelopeOpener({2: KEYS[1]}, Context.ROW).open(sealed, PLACE)


def test_no_two_envelopes_of_one_message_are_alike() -> None:
    one = sealer()
    assert len({one.seal(MESSAGE, PLACE) for _ in range(1000)}) == 1000


def test_sealers_with_the_same_key_draw_salts_of_their_own() -> None:
    """A clone of a process's memory shares its salt; its nonces are drawn after the cloning, from the kernel."""
    chance = FixedRandomness("salts")
    salts = {EnvelopeSealer(1, KEYS[1], Context.ROW, chance).seal(b"", b"")[5:21] for _ in range(50)}
    assert len(salts) == 50


def test_the_salt_is_renewed_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envelope, "MESSAGES_PER_SALT", 10)
    one = sealer()
    sealed = [one.seal(MESSAGE, PLACE) for _ in range(35)]
    assert len({it[5:21] for it in sealed}) == 4
    assert all(OPENER.open(it, PLACE) == MESSAGE for it in sealed)


def test_threads_share_a_sealer_and_an_opener(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envelope, "MESSAGES_PER_SALT", 7)

    class Chance:
        """os.urandom stands in: FixedRandomness is for one thread."""

        def __init__(self) -> None:
            self.lock = threading.Lock()
            self.inner = FixedRandomness("threads")

        def bytes(self, count: int) -> bytes:
            with self.lock:
                return self.inner.bytes(count)

    one = EnvelopeSealer(1, KEYS[1], Context.ROW, Chance())
    opener = EnvelopeOpener(KEYS, Context.ROW)
    failures: list[int] = []

    def work(number: int) -> None:
        for turn in range(300):
            message = b"%d %d" % (number, turn)
            if opener.open(one.seal(message, PLACE), PLACE) != message:
                failures.append(turn)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures


def test_the_openers_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envelope, "_OPEN_CIPHERS_MAX_COUNT", 8)
    opener = EnvelopeOpener(KEYS, Context.ROW)
    chance = FixedRandomness("many")
    for _ in range(50):
        opener.open(EnvelopeSealer(1, KEYS[1], Context.ROW, chance).seal(MESSAGE, PLACE), PLACE)
    assert opener._cipher.cache_info().currsize == 8


def test_rewrapping_touches_only_older_epochs() -> None:
    old = sealer(1).seal(MESSAGE, PLACE)
    new = rewrap(old, PLACE, OPENER, sealer(2))
    assert epoch_of(new) == 2
    assert OPENER.open(new, PLACE) == MESSAGE
    assert rewrap(new, PLACE, OPENER, sealer(2)) is new
    with pytest.raises(Corrupt):
        rewrap(old[:-1] + b"\0", PLACE, OPENER, sealer(2))
    with pytest.raises(Corrupt):
        rewrap(old, b"elsewhere", OPENER, sealer(2))


@given(st.binary(max_size=200))
def test_noise_is_corrupt(data: bytes) -> None:
    for noise in (data, b"\x01\x01\x00\x00\x00" + data):
        with pytest.raises(Corrupt):
            OPENER.open(noise, PLACE)
        if len(noise) < envelope.OVERHEAD_BYTES:
            with pytest.raises(Corrupt):
                epoch_of(noise)
