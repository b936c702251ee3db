"""The keyring: epochs, rotation, wrapping, passphrases, backups."""

import msgspec
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.errors import AccessDenied, Corrupt, HoldfastError, InvalidRequest
from holdfast.core.ids import StoreId
from holdfast.crypto import keyring as module
from holdfast.crypto.backup import fingerprint, read_backup, restore, write_backup
from holdfast.crypto.kek import (
    KMS_CIPHERTEXT_MAX_CHARACTERS,
    KeyEncryptionKey,
    PassphraseParameters,
    decode_kek_file,
    encode_kek_file,
    kek_from_passphrase,
    kms_ciphertext,
    new_kek,
    new_passphrase_parameters,
    passphrase_parameters,
    unwrap_keyring,
    wrap_keyring,
)
from holdfast.crypto.keyring import Purpose, decode_keyring, encode_keyring, new_keyring, retired, rotated
from tests.unit.crypto.chance import FixedRandomness

CHANCE = FixedRandomness("keyring")
STORE = StoreId(bytes(range(16)))
KEYRING = rotated(new_keyring(STORE, CHANCE), CHANCE)
KEK = new_kek(CHANCE)
# The cheapest that is accepted: these tests are not about the cost.
CHEAP = PassphraseParameters(bytes(16), passes=1, memory_kib=8 * 1024, lanes=1)


def test_round_trip() -> None:
    assert decode_keyring(encode_keyring(KEYRING)) == KEYRING
    assert unwrap_keyring(wrap_keyring(KEYRING, KEK, CHANCE), KEK) == KEYRING


def test_no_secret_in_any_repr() -> None:
    shown = repr(KEYRING) + repr(KEK) + repr(KEYRING.sealer(Purpose.READ, CHANCE)) + repr(KEYRING.opener(Purpose.READ))
    for epoch in KEYRING.epochs:
        for purpose in Purpose:
            assert repr(epoch.key(purpose))[2:-1] not in shown
    assert repr(KEYRING.signing_seed)[2:-1] not in shown
    assert repr(KEK.key)[2:-1] not in shown


def test_every_key_differs() -> None:
    keys = [epoch.key(purpose) for epoch in KEYRING.epochs for purpose in Purpose] + [KEYRING.signing_seed]
    assert len(set(keys)) == 9


def test_rotation_seals_with_the_new_epoch_and_opens_both() -> None:
    one = new_keyring(STORE, CHANCE)
    two = rotated(one, CHANCE)
    old, new = (ring.sealer(Purpose.METADATA, CHANCE).seal(b"value", b"key") for ring in (one, two))
    opener = two.opener(Purpose.METADATA)
    assert opener.open(old, b"key") == opener.open(new, b"key") == b"value"
    three = retired(two, [1])
    assert [epoch.number for epoch in three.epochs] == [2]
    assert three.opener(Purpose.METADATA).open(new, b"key") == b"value"
    with pytest.raises(Corrupt):
        three.opener(Purpose.METADATA).open(old, b"key")
    assert rotated(three, CHANCE).current.number == 3


def test_what_cannot_be_retired() -> None:
    for numbers in ([2], [1, 2], [3], [0]):
        with pytest.raises(InvalidRequest):
            retired(KEYRING, numbers)


def test_epochs_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EPOCHS_MAX_COUNT", 2)
    with pytest.raises(InvalidRequest):
        rotated(KEYRING, CHANCE)


def test_another_key_is_denied_and_damage_is_corrupt() -> None:
    wrapped = wrap_keyring(KEYRING, KEK, CHANCE)
    with pytest.raises(AccessDenied):
        unwrap_keyring(wrapped, new_kek(CHANCE))
    for at in range(len(wrapped)):
        flipped = bytearray(wrapped)
        flipped[at] ^= 0x01
        for broken in (bytes(flipped), wrapped[:at], wrapped[at + 1 :], wrapped[:at] + b"\0" + wrapped[at:]):
            if broken != wrapped:
                with pytest.raises(Corrupt):
                    unwrap_keyring(broken, KEK)


def test_damage_whose_checksum_was_forged_is_still_no_keyring() -> None:
    wrapped = wrap_keyring(KEYRING, KEK, CHANCE)
    version, header, ciphertext, _ = msgspec.msgpack.decode(wrapped)
    for part in (0, 1):
        for at in range(len((header, ciphertext)[part])):
            parts = [bytearray(header), bytearray(ciphertext)]
            parts[part][at] ^= 0x01
            checksum = blake3(bytes(parts[0] + parts[1])).digest(8)
            forged = msgspec.msgpack.encode([version, bytes(parts[0]), bytes(parts[1]), checksum])
            with pytest.raises((Corrupt, AccessDenied)):
                unwrap_keyring(forged, KEK)


def test_two_wrappings_share_nothing_but_their_form() -> None:
    one, two = (wrap_keyring(KEYRING, KEK, CHANCE) for _ in range(2))
    assert len(one) == len(two)
    assert sum(a == b for a, b in zip(one, two, strict=True)) < len(one) // 8


def test_a_passphrase_opens_and_another_does_not() -> None:
    kek = kek_from_passphrase("correct horse", CHEAP)
    wrapped = wrap_keyring(KEYRING, kek, CHANCE)
    parameters = passphrase_parameters(wrapped)
    assert parameters == CHEAP
    assert unwrap_keyring(wrapped, kek_from_passphrase("correct horse", parameters)) == KEYRING
    with pytest.raises(AccessDenied):
        unwrap_keyring(wrapped, kek_from_passphrase("correct horsf", parameters))
    assert passphrase_parameters(wrap_keyring(KEYRING, KEK, CHANCE)) is None


def test_a_key_that_a_service_sealed_lies_beside_the_keyring() -> None:
    wrapped = wrap_keyring(KEYRING, KeyEncryptionKey(KEK.key, kms="vault:v1:abc"), CHANCE)
    assert kms_ciphertext(wrapped) == "vault:v1:abc"
    assert passphrase_parameters(wrapped) is None
    assert unwrap_keyring(wrapped, KEK) == KEYRING
    assert kms_ciphertext(wrap_keyring(KEYRING, KEK, CHANCE)) is None
    for sealed in ("", "x" * (KMS_CIPHERTEXT_MAX_CHARACTERS + 1)):
        with pytest.raises(Corrupt):
            kms_ciphertext(wrap_keyring(KEYRING, KeyEncryptionKey(KEK.key, kms=sealed), CHANCE))


def test_a_source_of_a_later_version_is_refused() -> None:
    version, header, ciphertext, _ = msgspec.msgpack.decode(wrap_keyring(KEYRING, KEK, CHANCE))
    for source in (["argon3", b"salt"], ["kms"], ["kms", b"bytes"], 7):
        forged = msgspec.msgpack.encode([source, *msgspec.msgpack.decode(header)[1:]])
        checksum = blake3(forged + ciphertext).digest(8)
        with pytest.raises(Corrupt):
            kms_ciphertext(msgspec.msgpack.encode([version, forged, ciphertext, checksum]))


def test_changing_the_passphrase_changes_no_key() -> None:
    wrapped = wrap_keyring(KEYRING, kek_from_passphrase("old", CHEAP), CHANCE)
    keyring = unwrap_keyring(wrapped, kek_from_passphrase("old", CHEAP))
    again = wrap_keyring(keyring, kek_from_passphrase("new", CHEAP), CHANCE)
    assert unwrap_keyring(again, kek_from_passphrase("new", CHEAP)) == KEYRING


def test_a_passphrase_is_the_same_however_its_letters_are_composed() -> None:
    assert kek_from_passphrase("caf\u00e9", CHEAP) == kek_from_passphrase("cafe\u0301", CHEAP)
    with pytest.raises(InvalidRequest):
        kek_from_passphrase("", CHEAP)


def test_the_default_cost_is_that_of_the_rfc() -> None:
    parameters = new_passphrase_parameters(CHANCE)
    assert (parameters.passes, parameters.memory_kib, parameters.lanes) == (3, 65_536, 4)
    assert parameters.salt != new_passphrase_parameters(CHANCE).salt


@pytest.mark.parametrize(
    "costs", [(0, 65_536, 4), (17, 65_536, 4), (3, 8191, 4), (3, 2**20 + 1, 4), (3, 65_536, 0), (3, 65_536, 17)]
)
def test_absurd_costs_are_refused_before_they_are_paid(costs: tuple[int, int, int]) -> None:
    with pytest.raises(InvalidRequest):
        PassphraseParameters(bytes(16), *costs)
    wrapped = wrap_keyring(KEYRING, kek_from_passphrase("p", CHEAP), CHANCE)
    version, header, ciphertext, _ = msgspec.msgpack.decode(wrapped)
    [passphrase, *rest] = msgspec.msgpack.decode(header)
    forged_header = msgspec.msgpack.encode([[*passphrase[:2], *costs], *rest])
    checksum = blake3(forged_header + ciphertext).digest(8)
    with pytest.raises(Corrupt):
        passphrase_parameters(msgspec.msgpack.encode([version, forged_header, ciphertext, checksum]))


def test_other_functions_and_other_encodings_of_a_wrapping_are_corrupt() -> None:
    kek = kek_from_passphrase("p", CHEAP)
    version, header, ciphertext, checksum = msgspec.msgpack.decode(wrap_keyring(KEYRING, kek, CHANCE))
    [[_, *costs], *rest] = msgspec.msgpack.decode(header)
    other = msgspec.msgpack.encode([["scrypt", *costs], *rest])
    for wrong in (
        [version, other, ciphertext, blake3(other + ciphertext).digest(8)],
        [version, header, ciphertext, checksum, None],
        [version + 1, header, ciphertext, checksum],
    ):
        for read in (passphrase_parameters, lambda data: unwrap_keyring(data, kek)):
            with pytest.raises(Corrupt):
                read(msgspec.msgpack.encode(wrong))


def test_a_key_file_survives_an_editor_and_nothing_else() -> None:
    text = encode_kek_file(KEK)
    assert decode_kek_file(text) == KEK
    assert decode_kek_file(text.rstrip(b"\n")) == KEK
    for at in range(len(text) - 1):
        wrong = b"B" if text[at : at + 1] == b"A" else b"A"
        for broken in (text[:at] + wrong + text[at + 1 :], text[:at]):
            with pytest.raises(Corrupt):
                decode_kek_file(broken)
    with pytest.raises(AssertionError):
        encode_kek_file(KeyEncryptionKey(KEK.key, CHEAP))


def test_a_backup_restores_and_says_whose_it_is() -> None:
    text = write_backup(KEYRING, KEK, CHANCE)
    assert text.isascii()
    assert max(map(len, text.split(b"\n"))) <= 64
    backup = read_backup(text)
    assert backup.store == STORE
    assert backup.fingerprint == fingerprint(KEYRING)
    assert restore(text, KEK) == KEYRING
    assert restore(b"\r\n  " + text.replace(b"\n", b"  \r\n\r\n"), KEK) == KEYRING
    with pytest.raises(AccessDenied):
        restore(text, new_kek(CHANCE))


def test_every_changed_character_of_a_backup_is_caught() -> None:
    text = write_backup(new_keyring(STORE, CHANCE), KEK, CHANCE)
    for at in range(len(text) - 1):
        if text[at : at + 1] == b"\n":
            continue
        wrong = b"2" if text[at : at + 1] != b"2" else b"3"
        for broken in (text[:at] + wrong + text[at + 1 :], text[:at] + text[at + 1 :], text[:at]):
            with pytest.raises(Corrupt):
                restore(broken, KEK)


def test_fingerprints_tell_keyrings_apart() -> None:
    ring = new_keyring(STORE, CHANCE)
    rings = [ring, rotated(ring, CHANCE), new_keyring(STORE, CHANCE), new_keyring(StoreId(bytes(16)), CHANCE)]
    prints = [fingerprint(one) for one in rings]
    assert len(set(prints)) == 4
    assert all(len(one) == 29 and one.count("-") == 5 for one in prints)


@given(st.binary(max_size=300))
def test_noise_is_refused_by_every_decoder(data: bytes) -> None:
    for decode in (decode_keyring, decode_kek_file, passphrase_parameters, read_backup):
        with pytest.raises(Corrupt):
            decode(data)


scalars = st.one_of(st.none(), st.integers(-5, 300), st.binary(max_size=40), st.text(max_size=5), st.floats())


@given(st.recursive(scalars, lambda inner: st.lists(inner, max_size=6), max_leaves=20))
def test_well_formed_nonsense_is_refused_by_every_decoder(value: object) -> None:
    data = msgspec.msgpack.encode(value)
    for decode in (decode_keyring, passphrase_parameters):
        with pytest.raises(HoldfastError):
            decode(data)


@pytest.mark.parametrize(
    "inner", [b"\x92\x91\xa3\xff\xfe\xfd\xc4\x00", b"\x94\xc0\xc4\x00\xc4\x00" + b"\x91" * 100_000]
)
def test_text_that_is_none_and_bottomless_nesting_are_corrupt(inner: bytes) -> None:
    checksum = blake3(inner).digest(8)
    for data in (inner, msgspec.msgpack.encode([1, inner, b"", checksum])):
        for decode in (decode_keyring, passphrase_parameters):
            with pytest.raises(Corrupt):
                decode(data)


def test_documents_that_contradict_their_format_are_corrupt() -> None:
    [version, store, seed, epochs] = msgspec.msgpack.decode(encode_keyring(KEYRING))
    one, two = epochs
    for wrong in (
        [2, store, seed, epochs],
        [version, store[:-1], seed, epochs],
        [version, store, seed + b"\0", epochs],
        [version, store, seed, []],
        [version, store, seed, [two, one]],
        [version, store, seed, [one, one]],
        [version, store, seed, [[0, *one[1:]], two]],
        [version, store, seed, [one, [2**32, *two[1:]]]],
        [version, store, seed, [one, [*two[:4], two[4][:-1]]]],
        [version, store, seed, [one, [*two, b""]]],
        [version, store, seed, epochs, 1],
    ):
        with pytest.raises(Corrupt):
            decode_keyring(msgspec.msgpack.encode(wrong))
    with pytest.raises(Corrupt):
        decode_keyring(encode_keyring(KEYRING) + b"\0")
