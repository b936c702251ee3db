"""The checker against histories known to be right, known to be wrong, and against brute force.

The oracle here tries every order of every choice of the unknown operations; it shares no code with the checker but the
words of a history.
"""

import heapq
import itertools
from dataclasses import replace
from pathlib import Path
from random import Random
from time import process_time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from holdfast.testing.histories import (
    ABSENT,
    EXISTS,
    IS,
    Action,
    Observed,
    Operation,
    Outcome,
    listing_reads,
    load,
    overlap,
    save,
)
from holdfast.testing.linearizability import check


def read(process: int, started: int, ended: int, value: str | None) -> Operation:
    return Operation(process, "k", Action.READ, started, ended, value)


def put(process: int, started: int, ended: int, value: str, outcome: Outcome = Outcome.DONE) -> Operation:
    return Operation(process, "k", Action.WRITE, started, ended, value, outcome)


def delete(process: int, started: int, ended: int, outcome: Outcome = Outcome.DONE) -> Operation:
    return Operation(process, "k", Action.WRITE, started, ended, None, outcome)


def swap(
    process: int, started: int, ended: int, expected: str | None, value: str | None, outcome: Outcome = Outcome.DONE
) -> Operation:
    condition = ABSENT if expected is None else IS
    return Operation(process, "k", Action.WRITE, started, ended, value, outcome, condition, expected)


UNKNOWN, REFUSED = Outcome.UNKNOWN, Outcome.REFUSED

RIGHT = {
    "nothing": [],
    "absent at first": [read(1, 0, 1, None)],
    "read after write": [put(1, 0, 1, "a"), read(2, 2, 3, "a")],
    "a read beside a write may see either": [put(1, 0, 9, "a"), read(2, 1, 2, None), read(3, 3, 4, "a")],
    "touching intervals overlap": [put(1, 0, 5, "a"), read(2, 5, 6, None)],
    "writes beside each other end in any order": [put(1, 0, 9, "a"), put(2, 0, 9, "b"), read(3, 10, 11, "a")],
    "a hidden write comes before the one that is seen": [
        put(1, 0, 20, "a"), put(2, 0, 30, "b"), read(3, 1, 2, "b"), read(3, 21, 22, "b"), read(3, 31, 32, "b"),
    ],
    "a delete": [put(1, 0, 1, "a"), delete(1, 2, 3), read(2, 4, 5, None)],
    "a lost answer, and it happened": [put(1, 0, 1, "a", UNKNOWN), read(2, 2, 3, "a")],
    "a lost answer, and it did not happen": [put(1, 0, 1, "a", UNKNOWN), read(2, 2, 3, None)],
    "a lost answer, and it happens late": [
        put(1, 0, 1, "a", UNKNOWN), put(2, 2, 3, "b"), read(2, 4, 5, "b"), read(2, 6, 7, "a"),
    ],
    "a lost delete happens late": [
        put(1, 0, 1, "a"), delete(1, 2, 3, UNKNOWN), read(2, 4, 5, "a"), read(2, 6, 7, None),
    ],
    "one racer wins": [swap(1, 0, 9, None, "a"), swap(2, 0, 9, None, "b", REFUSED), read(3, 10, 11, "a")],
    "a chain of swaps": [put(1, 0, 1, "a"), swap(1, 2, 3, "a", "b"), swap(2, 2, 9, "b", "c"), read(3, 10, 11, "c")],
    "a refusal that a lost write explains": [put(1, 0, 1, "a", UNKNOWN), swap(2, 2, 3, None, "b", REFUSED)],
    "a lost write, refused by, deleted, never read": [
        put(1, 0, 1, "a", UNKNOWN), swap(2, 2, 3, None, "b", REFUSED), delete(2, 4, 5), read(2, 6, 7, None),
    ],
    "a swap of what a lost swap left": [
        put(1, 0, 1, "a"), swap(2, 2, 3, "a", "b", UNKNOWN), swap(3, 4, 5, "b", "c"), read(3, 6, 7, "c"),
    ],
}  # fmt: skip

WRONG = {
    "a value from nowhere": [read(1, 0, 1, "a")],
    "a lost write": [put(1, 0, 1, "a"), read(2, 2, 3, None)],
    "a stale read": [put(1, 0, 1, "a"), put(1, 2, 3, "b"), read(2, 4, 5, "a")],
    "a read from the future": [read(2, 0, 1, "a"), put(1, 2, 3, "a")],
    "a dirty read: the refused write was seen": [
        put(1, 0, 1, "a"), swap(2, 2, 3, None, "b", REFUSED), read(3, 4, 5, "b"),
    ],
    "reads that go backwards beside one write": [
        put(1, 0, 1, "a"), put(1, 2, 9, "b"), read(2, 3, 4, "b"), read(3, 5, 6, "a"),
    ],
    "a lost update: two swaps from one value": [
        put(1, 0, 1, "a"), swap(2, 2, 9, "a", "b"), swap(3, 2, 9, "a", "c"),
    ],
    "two creators": [swap(1, 0, 9, None, "a"), swap(2, 0, 9, None, "b")],
    "a resurrected delete": [put(1, 0, 1, "a"), delete(1, 2, 3), read(2, 4, 5, None), read(2, 6, 7, "a")],
    "a resurrection after a lost answer": [
        put(1, 0, 1, "a", UNKNOWN), read(2, 2, 3, "a"), delete(2, 4, 5), read(2, 6, 7, "a"),
    ],
    "a refusal without a reason": [put(1, 0, 1, "a"), swap(2, 2, 3, "a", "b", REFUSED)],
    "a creation over what is there": [put(1, 0, 1, "a"), swap(2, 2, 3, None, "b")],
    "a lost write happens twice": [
        put(1, 0, 1, "a", UNKNOWN), read(2, 2, 3, "a"), put(2, 4, 5, "b"), read(2, 6, 7, "b"), read(2, 8, 9, "a"),
    ],
    "two keys are not needed to see it: an order of three": [
        put(1, 0, 9, "a"), put(2, 0, 9, "b"), read(3, 10, 11, "a"), read(3, 12, 13, "b"),
    ],
    "an unknown swap cannot have happened": [
        put(1, 0, 1, "a"), swap(2, 2, 3, "x", "b", UNKNOWN), read(3, 4, 5, "b"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_right(name: str) -> None:
    assert check(RIGHT[name]) is None


@pytest.mark.parametrize("name", WRONG)
def test_wrong(name: str) -> None:
    assert check(WRONG[name]) is not None


def test_keys_are_checked_alone_and_the_wrong_one_is_named() -> None:
    good = [replace(operation, key="good") for operation in RIGHT["a chain of swaps"]]
    bad = [replace(operation, key="bad") for operation in WRONG["a stale read"]]
    violation = check([*good, *bad])
    assert violation is not None
    assert violation.operation == bad[-1]
    assert violation.held == ("b",)
    assert violation.context == tuple(bad[:-1])
    assert "read bad a" in str(violation)


def test_a_listing_that_omits_an_acknowledged_key_is_found() -> None:
    written = [Operation(1, key, Action.WRITE, 0, 1, key.upper()) for key in "abc"]
    complete = Observed(2, 2, 3, {"a": "A", "b": "B", "c": "C"})
    assert check([*written, *listing_reads(complete, "abc")]) is None
    omitting = Observed(2, 2, 3, {"a": "A", "c": "C"})
    violation = check([*written, *listing_reads(omitting, "abc")])
    assert violation is not None
    assert violation.operation.key == "b"


def test_a_listing_that_shows_a_deleted_key_or_an_old_etag_is_found() -> None:
    history = [put(1, 0, 1, "a"), put(1, 2, 3, "b")]
    assert check([*history, *listing_reads(Observed(2, 4, 5, {"k": "a"}), "k")]) is not None
    assert check([*history, *listing_reads(Observed(2, 4, 5, {"k": "b"}), "k")]) is None
    history.append(delete(1, 4, 5))
    assert check([*history, *listing_reads(Observed(2, 6, 7, {"k": "b"}), "k")]) is not None


def test_a_page_speaks_only_of_the_keys_that_it_covers() -> None:
    page = Observed(1, 0, 1, {"b": "B"}, after="a", until="b")
    assert [operation.key for operation in listing_reads(page, "abc")] == ["b"]
    last = Observed(1, 0, 1, {}, after="b")
    assert [(operation.key, operation.value) for operation in listing_reads(last, "abc")] == [("c", None)]


def test_overlap() -> None:
    assert overlap([]).operations == 0
    figures = overlap([put(1, 0, 4, "a"), read(2, 2, 4, None), read(3, 10, 12, "a"), put(4, 0, 1, "x", UNKNOWN)])
    assert figures.operations == 3
    assert figures.maximum == 2
    assert figures.mean == pytest.approx((2 * 1 + 2 * 2 + 2 * 1) / 6)
    assert figures.contended == pytest.approx(2 / 3)
    assert "3 operations" in str(figures)


def test_histories_survive_the_file_and_a_torn_last_line(tmp_path: Path) -> None:
    history = [*RIGHT["one racer wins"], *RIGHT["a lost answer, and it happens late"]]
    path = tmp_path / "history.jsonl"
    save(path, history)
    assert load(path) == history
    path.write_bytes(path.read_bytes()[:-7])
    assert load(path) == history[:-1]


@pytest.mark.parametrize(
    "fields",
    [
        {"ended": -1},
        {"condition": "perhaps"},
        {"outcome": REFUSED},
        {"action": Action.READ, "condition": ABSENT},
    ],
)
def test_operations_that_make_no_sense_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        replace(put(1, 0, 1, "a"), **fields)  # type: ignore[arg-type]


# Brute force.


def explained(order: tuple[Operation, ...]) -> bool:
    """Whether every answer is right when the operations happen in this order."""
    value: str | None = None
    for operation in order:
        allowed = {None: True, ABSENT: value is None, EXISTS: value is not None, IS: value == operation.expected}
        permitted = allowed[operation.condition]
        if operation.action is Action.READ:
            if operation.outcome is not UNKNOWN and operation.value != value:
                return False
        elif operation.outcome is REFUSED:
            if permitted:
                return False
        elif permitted:
            value = operation.value
        elif operation.outcome is Outcome.DONE:
            return False
    return True


def in_time(order: tuple[Operation, ...]) -> bool:
    """Whether nothing happens before something that had ended when it started."""
    return not any(
        later.outcome is not UNKNOWN and later.ended < earlier.started
        for earlier, later in itertools.combinations(order, 2)
    )


def brute_force(history: list[Operation]) -> bool:
    known = [operation for operation in history if operation.outcome is not UNKNOWN]
    unknown = [operation for operation in history if operation.outcome is UNKNOWN]
    for count in range(len(unknown) + 1):
        for happened in itertools.combinations(unknown, count):
            for order in itertools.permutations([*known, *happened]):
                if in_time(order) and explained(order):
                    return True
    return False


@st.composite
def operations(draw: st.DrawFn) -> Operation:
    started = draw(st.integers(0, 10))
    ended = started + draw(st.integers(0, 6))
    value = draw(st.sampled_from([None, "a", "b"]))
    process = draw(st.integers(1, 3))
    if draw(st.booleans()):
        outcome = draw(st.sampled_from([Outcome.DONE, Outcome.DONE, Outcome.DONE, UNKNOWN]))
        return Operation(process, "k", Action.READ, started, ended, value, outcome)
    condition = draw(st.sampled_from([None, None, ABSENT, EXISTS, IS]))
    expected = draw(st.sampled_from(["a", "b"])) if condition == IS else None
    outcomes = [Outcome.DONE, Outcome.DONE, UNKNOWN] + ([REFUSED] if condition else [])
    return Operation(
        process, "k", Action.WRITE, started, ended, value, draw(st.sampled_from(outcomes)), condition, expected
    )


@settings(deadline=None, max_examples=800)
@example(RIGHT["a lost answer, and it happens late"])
@example(WRONG["a lost write happens twice"])
@given(st.lists(operations(), max_size=5))
def test_agrees_with_brute_force(history: list[Operation]) -> None:
    assert (check(history) is None) == brute_force(history)


# Long histories, made by a store that is right by construction.


def simulate(random: Random, *, count: int, processes: int, keys: int, lost: float) -> list[Operation]:
    """`count` operations of clients that wait for each answer, on a store where each happens at one moment."""
    store: dict[str, str | None] = {}
    history: list[Operation] = []
    serial = itertools.count()
    # (moment at which it happens, tie breaker, its interval's start, process, key, what)
    due: list[tuple[int, int, int, int, str, str]] = []

    def submit(process: int, now: int) -> None:
        key = f"key-{random.randrange(keys)}"
        what = random.choice(["put", "get", "get", "get", "delete", "create", "swap"])
        heapq.heappush(due, (now + random.randrange(1, 100), next(serial), now, process, key, what))

    for process in range(processes):
        submit(process, 0)
    while len(history) < count:
        moment, number, started, process, key, what = heapq.heappop(due)
        ended = moment + random.randrange(1, 100)
        held = store.get(key)
        if what == "get":
            history.append(Operation(process, key, Action.READ, started, ended, held))
        else:
            expected = held if random.random() < 0.7 else "stale"
            condition = {"create": ABSENT, "swap": IS}.get(what)
            value = None if what == "delete" else f"v{number}"
            allowed = condition is None or (
                held is None if condition == ABSENT else held == expected and held is not None
            )
            outcome = Outcome.DONE if allowed else REFUSED
            unknown = random.random() < lost
            if allowed and not (unknown and random.random() < 0.5):
                store[key] = value
            expected = (expected or "nothing") if condition == IS else None
            history.append(
                Operation(
                    process,
                    key,
                    Action.WRITE,
                    started,
                    ended,
                    value,
                    UNKNOWN if unknown else outcome,
                    condition,
                    expected,
                )
            )
        submit(process, ended + random.randrange(1, 20))
    return history


@pytest.mark.parametrize("lost", [0.0, 0.002])
def test_tens_of_thousands_of_operations_take_seconds(lost: float) -> None:
    history = simulate(Random(7), count=40_000, processes=8, keys=10, lost=lost)
    figures = overlap(history)
    assert figures.maximum == 8
    started = process_time()
    assert check(history) is None
    assert process_time() - started < 20


@pytest.mark.parametrize("seed", range(20))
def test_one_stale_read_among_thousands_is_found(seed: int) -> None:
    random = Random(seed)
    history = simulate(random, count=3000, processes=8, keys=3, lost=0.002)
    reads = [index for index, operation in enumerate(history) if operation.action is Action.READ]
    while True:
        index = random.choice(reads)
        victim = history[index]
        before = [o for o in history if o.key == victim.key and o.ended < victim.started and o.outcome is Outcome.DONE]
        settled = [o for o in before if o.action is Action.WRITE and o.value is not None]
        overwritten = [o for o in settled if any(later.started > o.ended for later in settled)]
        if overwritten:
            break
    stale = max(overwritten, key=lambda operation: operation.ended)
    history[index] = replace(victim, value=stale.value)
    violation = check(history)
    assert violation is not None
    assert violation.operation.key == victim.key
