"""Blocks over many drives: quorum write, checked and hedged read, handoff, repair. Knows no key."""

from holdfast.cluster.cluster import Cluster, OnDamage
from holdfast.cluster.write import Written

__all__ = ["Cluster", "OnDamage", "Written"]
