"""What a key may do, and how a row keeps it."""

import pytest

from holdfast.core.errors import AccessDenied
from holdfast.objects.access import (
    EITHER,
    NOTHING,
    READ,
    ROOT,
    WRITE,
    Access,
    decode_grants,
    encode_grants,
)


def test_grants_hold_for_their_bucket_alone() -> None:
    access = Access(grants={"a": READ, "b": EITHER})
    assert access.allows("a", READ)
    assert access.allows("a", EITHER)
    assert not access.allows("a", WRITE)
    assert access.allows("b", WRITE)
    assert not access.allows("c", EITHER)
    with pytest.raises(AccessDenied):
        access.require("a", WRITE)


def test_a_grant_for_every_bucket_adds_to_the_others() -> None:
    access = Access(grants={"*": READ, "a": WRITE})
    assert access.allows("a", READ)
    assert access.allows("a", WRITE)
    assert access.allows("never heard of", READ)
    assert not access.allows("never heard of", WRITE)


def test_nothing_is_for_root_alone() -> None:
    assert not Access(grants={"*": EITHER}).allows("a", NOTHING)
    assert ROOT.allows("a", NOTHING)
    assert ROOT.allows("", NOTHING)


def test_a_row_keeps_letters_and_reads_only_those_it_knows() -> None:
    grants = {"b": EITHER, "*": READ, "a": NOTHING}
    assert encode_grants(grants) == {"*": "r", "b": "rw"}
    assert decode_grants(encode_grants(grants)) == {"*": READ, "b": EITHER}
    assert decode_grants({"a": "wz", "b": "z"}) == {"a": WRITE, "b": NOTHING}
