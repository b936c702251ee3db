"""Chance that is the same in every run: for golden bytes."""

from blake3 import blake3


class FixedRandomness:
    """The BLAKE3 stream of a seed, read on and on."""

    def __init__(self, seed: str = "") -> None:
        self._stream = blake3(seed.encode())
        self._position = 0

    def bytes(self, count: int) -> bytes:
        start = self._position
        self._position += count
        return self._stream.digest(count, seek=start)
