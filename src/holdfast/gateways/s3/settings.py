"""What an operator can set of this gateway, and what the composition root puts into it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from holdfast.gateways.s3.sigv4 import Credentials
from holdfast.objects.store import Store

DEFAULT_REGION = "us-east-1"


@dataclass(frozen=True, slots=True)
class Settings:
    region: str = DEFAULT_REGION
    """The region that signatures must name, and that buckets are in. "" accepts any and answers DEFAULT_REGION."""
    domains: tuple[str, ...] = ()
    """Host names, without port, below which the first label is a bucket ("bucket.s3.example.org")."""
    owner_id: str = "02d6176db174dc93cb1b899f7c6078f08654445fe8cf1b6ce98d8855f66bdbf4"
    """The canonical id of the one account that owns everything."""
    owner_name: str = "holdfast"

    @property
    def location(self) -> str:
        """The region as answers name it."""
        return self.region or DEFAULT_REGION


@dataclass(frozen=True, slots=True)
class Services:
    """What the gateway serves from; made when the worker starts, by the composition root."""

    store: Store
    credentials: Credentials
    ready: Callable[[], Awaitable[None]]
    """Returns when requests can be served now; raises HoldfastError when not. Called by /health/ready."""
