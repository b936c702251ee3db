"""How long drives take to answer just now: when to stop waiting for one and ask another."""

# Below this, hedging would answer to the scheduler's noise and not to a slow drive.
HEDGE_MIN_SECONDS = 0.02

# A drive that takes this long to read a fragment is not worth waiting for, however slow all of them are.
HEDGE_MAX_SECONDS = 1.0

# Weights of a new sample in mean and deviation, and the deviations to wait: those of TCP's retransmission timer
# (RFC 6298), which has the same question to answer.
MEAN_WEIGHT = 1 / 8
DEVIATION_WEIGHT = 1 / 4
DEVIATIONS_WAITED = 4


class Latency:
    """A running mean and deviation of read times, seconds."""

    def __init__(self) -> None:
        self._mean = 0.0
        self._deviation = 0.0

    def observe(self, seconds: float) -> None:
        self._deviation += (abs(seconds - self._mean) - self._deviation) * DEVIATION_WEIGHT
        self._mean += (seconds - self._mean) * MEAN_WEIGHT

    @property
    def hedge_after(self) -> float:
        """Seconds after which a read is late."""
        late = self._mean + DEVIATIONS_WAITED * self._deviation
        return min(max(late, HEDGE_MIN_SECONDS), HEDGE_MAX_SECONDS)
