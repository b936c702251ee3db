"""The embedded engine: a log on several drives, a view in LMDB, and no leader among the processes that share them."""
