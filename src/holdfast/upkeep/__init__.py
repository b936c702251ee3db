"""Keeps what is stored whole: scrub, repair, rebalance, audit, collection, sweep, recode. Plans purely, acts in steps.

`interface` is what it is handed; the pure functions beside each worker decide; `worker` drives. Whatever touches more
than one drive is the `cluster` room's.
"""
