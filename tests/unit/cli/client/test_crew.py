"""Threads that do the work."""

import threading
import time
from collections.abc import Iterator

import pytest

from holdfast.cli.client.crew import Crew, Stopped
from holdfast.core.errors import Corrupt, NotFound


@pytest.fixture
def crew() -> Iterator[Crew]:
    crew = Crew(3)
    yield crew
    crew.close()


def test_every_thing_once_with_its_result(crew: Crew) -> None:
    def work(number: int) -> int:
        if number % 10 == 3:
            raise NotFound(str(number))
        return number * number

    results = dict(crew.each(range(100), work))
    assert set(results) == set(range(100))
    for number, result in results.items():
        assert isinstance(result, NotFound) if number % 10 == 3 else result == number * number


def test_a_listing_is_not_read_far_ahead(crew: Crew) -> None:
    taken = 0

    def things() -> Iterator[int]:
        nonlocal taken
        for number in range(1000):
            taken += 1
            yield number

    for done, _ in enumerate(crew.each(things(), lambda number: number)):
        assert taken <= done + 3 * 4 + 1
    assert taken == 1000


def test_no_more_at_once_than_there_may_be(crew: Crew) -> None:
    lock, running, most = threading.Lock(), 0, 0
    first = threading.Barrier(3)

    def work(number: int) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        if number < first.parties:
            first.wait(60)
        time.sleep(0.005)
        with lock:
            running -= 1

    list(crew.each(range(20), work))
    assert most == 3


def test_jobs_with_parts_do_not_wait_for_each_other(crew: Crew) -> None:
    def job(number: int) -> int:
        return sum(result for _, result in crew.parts(range(10), lambda part: part * number))

    assert dict(crew.each(range(20), job)) == {number: 45 * number for number in range(20)}


def test_one_bad_part_ends_the_object(crew: Crew) -> None:
    begun = []

    def work(part: int) -> None:
        begun.append(part)
        if part == 5:
            raise Corrupt("that one")

    with pytest.raises(Corrupt, match="that one"):
        list(crew.parts(range(1000), work))
    assert len(begun) < 20


def test_a_bug_is_not_swallowed(crew: Crew) -> None:
    with pytest.raises(ZeroDivisionError):
        list(crew.each([0], lambda number: 1 // number))


def test_closed_it_stops(crew: Crew) -> None:
    crew.close()
    with pytest.raises(Stopped):
        crew.check()
