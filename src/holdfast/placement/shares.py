"""How much of each partition's width a drive should hold: in proportion to weight, within what safety allows.

Of a block's fragments a drive holds at most one, a node at most `per_node`, a zone at most `per_zone`: the smallest
numbers with which all fragments find a place. Nodes come first where the two conflict (a zone with few nodes takes
fewer fragments). The shares are the fairest under these bounds: share = rate x weight, with one rate for all but those
in a drive, node or zone that is full; these get the most that fits.

Floating point is used so that every machine gets the same bits: only + (by fsum, which is exact), * and /, min, max.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import fsum

from holdfast.placement.layout import LayoutDrive

# Halvings of the search for a rate: down to the last bit of a float, so that every machine ends on the same one.
RATE_SEARCH_STEPS = 100

Node = tuple[str, str]
"""Zone and node: a node's name is its own only within its zone."""


def node_of(drive: LayoutDrive) -> Node:
    return drive.zone, drive.node


@dataclass(frozen=True, slots=True)
class Shares:
    """Bounds, and the expected number of fragments (0 to 1) of one block on each drive, in the order given."""

    per_node: int
    per_zone: int
    expected: tuple[float, ...]


def fair_shares(drives: Sequence[LayoutDrive], width: int) -> Shares:
    """Shares of `width` fragments over `drives`, of which there are at least as many."""
    assert 0 < width <= len(drives), f"{width} fragments over {len(drives)} drives"
    zones: dict[str, dict[Node, list[int]]] = {}
    for drive in drives:
        zones.setdefault(drive.zone, {}).setdefault(node_of(drive), []).append(drive.weight)
    nodes = [weights for zone in zones.values() for weights in zone.values()]
    per_node = _smallest(lambda bound: sum(min(len(weights), bound) for weights in nodes), width)
    room = [sum(min(len(weights), per_node) for weights in zone.values()) for zone in zones.values()]
    per_zone = _smallest(lambda bound: sum(min(of_zone, bound) for of_zone in room), width)

    def of_node(weights: Sequence[int], rate: float) -> float:
        return min(float(per_node), fsum(min(1.0, rate * weight) for weight in weights))

    def of_zone(zone: Mapping[Node, Sequence[int]], rate: float) -> float:
        return min(float(per_zone), fsum(of_node(weights, rate) for weights in zone.values()))

    def of_all(rate: float) -> float:
        return fsum(of_zone(zone, rate) for zone in zones.values())

    rate = _rate(of_all, width, 1.0 / min(drive.weight for drive in drives))
    rates: dict[Node, float] = {}
    for zone in zones.values():
        held = of_zone(zone, rate)
        zone_rate = _rate(lambda r, zone=zone: fsum(of_node(w, r) for w in zone.values()), held, rate)  # type: ignore[misc]
        for node, weights in zone.items():
            held = of_node(weights, zone_rate)
            rates[node] = _rate(lambda r, weights=weights: fsum(min(1.0, r * w) for w in weights), held, zone_rate)  # type: ignore[misc]
    return Shares(per_node, per_zone, tuple(min(1.0, rates[node_of(drive)] * drive.weight) for drive in drives))


def _smallest(places: Callable[[int], int], width: int) -> int:
    """The smallest bound under which there are `width` places."""
    bound = 1
    while places(bound) < width:
        bound += 1
    return bound


def _rate(amount_at: Callable[[float], float], amount: float, ceiling: float) -> float:
    """The lowest rate up to `ceiling` at which `amount` is given out; the ceiling when rounding leaves it short."""
    low, high = 0.0, ceiling
    for _ in range(RATE_SEARCH_STEPS):
        middle = (low + high) / 2
        if amount_at(middle) < amount:
            low = middle
        else:
            high = middle
    return high
