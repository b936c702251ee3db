"""Words that every room shares: ids, names, ranges, limits, errors, and the protocols of time, chance and disk.

Pure: nothing here does I/O or reads a clock.
"""
