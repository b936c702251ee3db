"""What a mirror would do, against sets and dicts."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.cli.client.comparing import Comparison, Item, Step, compare
from holdfast.core.errors import RemoteProtocolError

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)

names = st.dictionaries(st.text("ab/-.ü", min_size=1, max_size=4), st.integers(0, 2), max_size=12)


def side(sizes: dict[str, int]) -> list[Item]:
    return [Item(name, sizes[name], NOON) for name in sorted(sizes, key=str.encode)]


@given(names, names)
def test_every_name_once_and_rightly(source: dict[str, int], target: dict[str, int]) -> None:
    actions = list(compare(side(source), side(target), lambda one, other: one.size == other.size))
    told = {action.item.relative: action.step for action in actions}
    assert len(told) == len(actions)
    assert {name for name, step in told.items() if step is Step.NEW} == source.keys() - target.keys()
    assert {name for name, step in told.items() if step is Step.EXTRA} == target.keys() - source.keys()
    for name in source.keys() & target.keys():
        assert told[name] is (Step.SAME if source[name] == target[name] else Step.CHANGED)


def test_a_listing_out_of_order_ends_it() -> None:
    items = [Item("b", 1, NOON), Item("a", 1, NOON)]
    with pytest.raises(RemoteProtocolError, match="order of keys"):
        list(compare(items, [], lambda *_: True))
    with pytest.raises(RemoteProtocolError, match="order of keys"):
        list(compare([], [items[0], items[0]], lambda *_: True))


def file(modified: datetime, size: int = 5) -> Item:
    return Item("x", size, modified, path=Path("x"))


def stored(modified: datetime, etag: str = "e", size: int = 5) -> Item:
    return Item("x", size, modified, etag=etag)


def differs(*_: object) -> bool:
    return False


def agrees(*_: object) -> bool:
    return True


def unread(*_: object) -> bool:
    raise AssertionError("nothing need be read for this")


def test_an_upload_goes_by_size_then_age_then_content() -> None:
    assert not Comparison(agrees).is_same(file(NOON), stored(NOON + HOUR, size=6))
    assert Comparison(unread).is_same(file(NOON), stored(NOON + HOUR))
    assert Comparison(agrees).is_same(file(NOON + HOUR), stored(NOON))
    assert not Comparison(differs).is_same(file(NOON + HOUR), stored(NOON))
    assert not Comparison(differs, by_content=True).is_same(file(NOON), stored(NOON + HOUR))


def test_changed_within_the_second_of_the_upload_is_looked_into() -> None:
    assert not Comparison(differs).is_same(file(NOON), stored(NOON))
    assert not Comparison(differs).is_same(file(NOON), stored(NOON + timedelta(seconds=1)))


def test_a_slow_clock_hides_no_change() -> None:
    """This machine is an hour behind: a file changed after its upload still looks older than the object."""
    assert not Comparison(differs, skew=HOUR).is_same(file(NOON), stored(NOON + HOUR / 2))
    assert Comparison(unread, skew=-HOUR).is_same(file(NOON), stored(NOON - HOUR / 2))


def test_a_download_goes_by_the_very_time() -> None:
    assert Comparison(unread).is_same(stored(NOON + timedelta(milliseconds=300)), file(NOON))
    assert not Comparison(differs).is_same(stored(NOON), file(NOON + HOUR))
    assert not Comparison(differs).is_same(stored(NOON), file(NOON - HOUR))
    assert Comparison(agrees).is_same(stored(NOON), file(NOON + HOUR))
    assert not Comparison(differs, by_content=True).is_same(stored(NOON), file(NOON))


def test_between_buckets_the_etag_says_it() -> None:
    assert Comparison(unread).is_same(stored(NOON, "e"), stored(NOON, "e"))
    assert not Comparison(unread).is_same(stored(NOON, "e"), stored(NOON + HOUR, "f"))
    assert Comparison(unread).is_same(stored(NOON, "e-2"), stored(NOON + HOUR, "f-3"))
    assert not Comparison(unread).is_same(stored(NOON + HOUR, "e-2"), stored(NOON, "f-3"))
    assert not Comparison(unread, by_content=True).is_same(stored(NOON, "e-2"), stored(NOON + HOUR, "f-3"))
