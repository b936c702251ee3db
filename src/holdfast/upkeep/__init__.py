"""Keeps what is stored whole: scrub, repair, rebalance, audit, collection, sweep, recode. Plans purely, acts in steps.

`interface` is what it is handed; `plan` and the pure functions beside each worker decide; `worker` drives.
"""
