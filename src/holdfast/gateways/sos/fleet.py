"""All blob servers of a process, and what it has learned of them: hints that decide who is asked first, never what is
true. Losing them costs time and nothing else, so the API server stays stateless."""

from collections import OrderedDict
from collections.abc import Callable, Sequence

from holdfast.core.clock import Clock
from holdfast.gateways.sos.blob_client import BlobClient
from holdfast.gateways.sos.servers import Server, Servers

# A server that failed is asked last for so long: a dead one costs its time-out once, not for every request.
AVOID_SECONDS = 15.0

# Which server an object was found on: 100 bytes or so each.
LOCATIONS_MAX_COUNT = 100_000

# Objects that a server has wrong bytes of.
ACCUSED_MAX_COUNT = 10_000


class Fleet:
    """Blob servers in the order in which they should be asked."""

    def __init__(self, servers: Servers, connect: Callable[[Server], BlobClient], clock: Clock) -> None:
        clients = {server.url: connect(server) for server in servers.all}
        self._for_uploads = [clients[server.url] for server in servers.for_uploads()]
        self._for_fetches = [clients[server.url] for server in servers.ordered()]
        self._clock = clock
        self._failed: dict[str, float] = {}
        self._locations: OrderedDict[str, str] = OrderedDict()
        self._accused: OrderedDict[tuple[str, str], None] = OrderedDict()

    def for_upload(self) -> list[BlobClient]:
        """Preferred servers first, read-only ones not at all, those that just failed last."""
        return self._last_if_failed(self._for_uploads)

    def for_fetch(self, id: str) -> list[BlobClient]:
        """Where the object was seen, then the others; those that just failed, or have it wrong, last."""
        clients = self._last_if_failed(self._for_fetches)
        located = self._locations.get(id)
        if located is not None:
            self._locations.move_to_end(id)
        return sorted(
            clients,
            key=lambda client: ((client.server.url, id) in self._accused, client.server.url != located),
        )

    def failed(self, server: Server) -> None:
        """It did not answer, or said that it cannot."""
        self._failed[server.url] = self._clock.monotonic()

    def answered(self, server: Server) -> None:
        self._failed.pop(server.url, None)

    def located(self, id: str, server: Server) -> None:
        """The object is there."""
        self._locations[id] = server.url
        self._locations.move_to_end(id)
        if len(self._locations) > LOCATIONS_MAX_COUNT:
            self._locations.popitem(last=False)

    def accuse(self, id: str, server: Server) -> None:
        """What it keeps under this id is not what it should be."""
        if self._locations.get(id) == server.url:
            del self._locations[id]
        self._accused[server.url, id] = None
        if len(self._accused) > ACCUSED_MAX_COUNT:
            self._accused.popitem(last=False)

    def _last_if_failed(self, clients: Sequence[BlobClient]) -> list[BlobClient]:
        if not self._failed:
            return list(clients)
        recent = self._clock.monotonic() - AVOID_SECONDS
        return sorted(clients, key=lambda client: self._failed.get(client.server.url, recent) > recent)
