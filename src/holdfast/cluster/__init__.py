"""Blocks over many drives: quorum write, checked and hedged read, handoff, repair. Knows no key."""

from holdfast.cluster.cluster import BlockStat, Cluster, OnDamage, Repaired
from holdfast.cluster.write import Written

__all__ = ["BlockStat", "Cluster", "OnDamage", "Repaired", "Written"]
