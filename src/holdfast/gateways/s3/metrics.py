"""Counters of the gateway, for Prometheus."""


class Metrics:
    def begin(self) -> None: ...

    def end(self, verb: str, status: int, seconds: float, received: int, sent: int) -> None: ...
