"""Is a history linearizable? A checker for keys that are read, written, deleted and compared-and-swapped.

Linearizable: every operation took effect at one moment between its start and its end, and every answer is the one
that this order gives (Herlihy and Wing, 1990). Keys are independent, so each is checked alone (their locality
theorem).

The search is Lowe's just-in-time linearization ("Testing for linearizability", 2017) of the method of Wing and Gong
(1993). Starts and ends are walked through in time order; kept is the set of all configurations that explain what was
answered so far: what the key holds, and which of the operations in flight have already taken effect. At each end, those
configurations in which the ending operation has not happened yet are extended by every sequence of operations in
flight that leads to it. None left: the history is not linearizable, and that operation is where it shows.

What keeps it fast, all of it exact:
- An operation without effect (a read, a refused write) happens as soon as its answer fits: earlier is never worse.
- An operation of unknown outcome stays in flight for ever. A configuration that used up fewer of these is never worse.
- A write of unknown outcome whose value nobody saw can only explain a refusal; without refusals it is left out.

The cost grows with the number of writes in flight at once on one key (2**n configurations at worst, a handful in
practice), not with the length of the history.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from holdfast.testing.histories import ABSENT, EXISTS, IS, Action, Operation, Outcome

# Below this many configurations, looking for the dominated ones costs more than carrying them along.
PRUNE_MIN_COUNT = 8

# How many earlier operations on the key a violation shows.
CONTEXT_COUNT = 24

Configuration = tuple[str | None, int]
"""What the key holds, and a bit for each operation in flight that has taken effect."""


@dataclass(frozen=True, slots=True)
class Violation:
    """Why a history is not linearizable."""

    operation: Operation
    """The operation whose answer no order explains."""
    held: tuple[str | None, ...]
    """What the key may have held when that operation ended, by every order that explains the answers before."""
    context: tuple[Operation, ...]
    """The operations on the key that were in flight or ended shortly before, by start."""

    def __str__(self) -> str:
        origin = self.operation.started
        lines = [f"no order explains {_describe(self.operation, origin)}", f"the key may have held {list(self.held)}"]
        return "\n  ".join([*lines, *(_describe(operation, origin) for operation in self.context)])


def _describe(operation: Operation, origin: int) -> str:
    condition = ""
    if operation.condition is not None:
        condition = f" if {operation.condition}" + (f" {operation.expected}" if operation.condition == IS else "")
    end = "?" if operation.outcome is Outcome.UNKNOWN else f"{operation.ended - origin:+d}"
    return (
        f"[{operation.started - origin:+d}, {end}] process {operation.process}: {operation.action} "
        f"{operation.key} {operation.value}{condition}: {operation.outcome}"
    )


def check(history: Iterable[Operation]) -> Violation | None:
    """The first violation found, or None: the history is linearizable, every key starting out absent."""
    keys: defaultdict[str, list[Operation]] = defaultdict(list)
    for operation in history:
        keys[operation.key].append(operation)
    for operations in keys.values():
        violation = _Key(operations).check()
        if violation is not None:
            return violation
    return None


def holds(operation: Operation, value: str | None) -> bool:
    """Whether the condition of a write holds of a key that has `value`."""
    match operation.condition:
        case None:
            return True
        case condition if condition == ABSENT:
            return value is None
        case condition if condition == EXISTS:
            return value is not None
        case _:
            return value is not None and value == operation.expected


def _explainable(operations: Sequence[Operation]) -> list[Operation]:
    """Without what can play no part: unknown reads, and unknown writes that explain nothing."""
    seen: set[str | None] = set()
    refused = False
    for operation in operations:
        if operation.action is Action.READ and operation.outcome is Outcome.DONE:
            seen.add(operation.value)
        elif operation.outcome is Outcome.REFUSED:
            refused = True
        elif operation.condition == IS:
            seen.add(operation.expected)
        elif operation.condition == ABSENT:
            seen.add(None)
        elif operation.condition == EXISTS:
            refused = True  # any value at all explains it, as it does a refusal
    return [
        operation
        for operation in operations
        if operation.outcome is not Outcome.UNKNOWN
        or (operation.action is Action.WRITE and (refused or operation.value in seen))
    ]


class _Key:
    """The walk over one key's operations."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        self._operations = _explainable(operations)
        self._configurations: set[Configuration] = {(None, 0)}
        self._effectless: dict[int, Operation] = {}
        self._writes: dict[int, Operation] = {}
        self._unknown_bits = 0
        self._free: list[int] = []
        self._bits_used = 0

    def check(self) -> Violation | None:
        # At one and the same moment starts come before ends: touching intervals overlap, which never accuses wrongly.
        events = [(operation.started, 0, index) for index, operation in enumerate(self._operations)]
        events += [
            (operation.ended, 1, index)
            for index, operation in enumerate(self._operations)
            if operation.outcome is not Outcome.UNKNOWN
        ]
        events.sort()
        bits: dict[int, int] = {}
        for _, ends, index in events:
            operation = self._operations[index]
            if not ends:
                bits[index] = self._start(operation)
            elif not self._end(operation, bits.pop(index)):
                return self._violation(index)
        return None

    def _start(self, operation: Operation) -> int:
        """Put `operation` in flight; its bit."""
        if self._free:
            bit = self._free.pop()
        else:
            bit = 1 << self._bits_used
            self._bits_used += 1
        if operation.action is Action.WRITE and operation.outcome is not Outcome.REFUSED:
            self._writes[bit] = operation
            if operation.outcome is Outcome.UNKNOWN:
                self._unknown_bits |= bit
        else:
            self._effectless[bit] = operation
            self._configurations = {
                (value, done | bit if _fits(operation, value) else done) for value, done in self._configurations
            }
        return bit

    def _end(self, operation: Operation, bit: int) -> bool:
        """Keep what explains the answer of `operation`; whether anything is left."""
        happened = {configuration for configuration in self._configurations if configuration[1] & bit}
        waiting = self._configurations - happened
        happened |= self._extend(waiting, bit)
        if not happened:
            return False
        self._writes.pop(bit, None)
        self._effectless.pop(bit, None)
        self._free.append(bit)
        self._configurations = {(value, done & ~bit) for value, done in happened}
        if len(self._configurations) >= PRUNE_MIN_COUNT:
            self._configurations = self._undominated(self._configurations)
        return True

    def _extend(self, waiting: set[Configuration], bit: int) -> set[Configuration]:
        """The configurations reached from `waiting` by sequences of writes in flight that end with `bit` happening."""
        reached: set[Configuration] = set()
        visited = set(waiting)
        frontier = waiting
        while frontier:
            following: set[Configuration] = set()
            for value, done in frontier:
                for write_bit, write in self._writes.items():
                    if done & write_bit or not holds(write, value):
                        continue
                    after = done | write_bit | self._fitting(write.value)
                    configuration = (write.value, after)
                    if after & bit:
                        reached.add(configuration)
                    elif configuration not in visited:
                        visited.add(configuration)
                        following.add(configuration)
            if self._unknown_bits and len(following) >= PRUNE_MIN_COUNT:
                following = self._undominated(visited) & following
            frontier = following
        return reached

    def _fitting(self, value: str | None) -> int:
        """The bits of the operations without effect whose answer is right while the key has `value`."""
        bits = 0
        for bit, operation in self._effectless.items():
            if _fits(operation, value):
                bits |= bit
        return bits

    def _undominated(self, configurations: set[Configuration]) -> set[Configuration]:
        """Without those that are nowhere better than another: same value and writes, more unknowns, fewer answers."""
        unknown = self._unknown_bits
        definite = 0
        for bit in self._writes:
            definite |= bit & ~unknown
        groups: defaultdict[tuple[str | None, int], list[int]] = defaultdict(list)
        for value, done in configurations:
            groups[value, done & definite].append(done)
        kept: set[Configuration] = set()
        for (value, _), group in groups.items():
            group.sort(key=lambda done: (done & unknown).bit_count() - (done & ~unknown).bit_count())
            best: list[int] = []
            for done in group:
                if not any(not (other & unknown & ~done) and not (done & ~unknown & ~other) for other in best):
                    best.append(done)
            kept.update((value, done) for done in best)
        return kept

    def _violation(self, index: int) -> Violation:
        operation = self._operations[index]
        before = [
            other
            for other in self._operations
            if other is not operation and other.started <= operation.ended and other.outcome is not Outcome.UNKNOWN
        ]
        before.sort(key=lambda other: (min(other.ended, operation.ended), other.started))
        context = sorted([*before[-CONTEXT_COUNT:], *self._unknown_writes()], key=lambda other: other.started)
        held = sorted({value for value, _ in self._configurations}, key=lambda value: (value is not None, value or ""))
        return Violation(operation, tuple(held), tuple(context))

    def _unknown_writes(self) -> list[Operation]:
        return [write for bit, write in self._writes.items() if bit & self._unknown_bits]


def _fits(operation: Operation, value: str | None) -> bool:
    """Whether an operation without effect gives its answer when the key has `value`."""
    if operation.action is Action.READ:
        return operation.value == value
    return not holds(operation, value)
