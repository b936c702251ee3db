"""What the holder of a key may do. Values only: every gateway asks the same question of them.

Rules. The root key may do everything, and it alone administers. Any other key has grants, by the name of a bucket or
for every bucket: what it was not granted it may not do, and a bucket in which it may do nothing is not shown to it.
Grants are by name, so they may be given before the bucket is made, and hold for one that is made again: only root makes
any.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum

from msgspec import Struct

from holdfast.core.errors import AccessDenied


class Permission(StrEnum):
    """What can be granted in a bucket. The value is its letter in a key's row."""

    READ = "r"
    WRITE = "w"


Permissions = frozenset[Permission]

NOTHING: Permissions = frozenset()
READ: Permissions = frozenset((Permission.READ,))
WRITE: Permissions = frozenset((Permission.WRITE,))
EITHER: Permissions = READ | WRITE

EVERY_BUCKET = "*"
"""In place of a bucket's name: all there are, and all that will be."""


class Access(Struct, frozen=True):
    """What one key may do."""

    root: bool = False
    grants: Mapping[str, Permissions] = {}
    """By bucket, those of EVERY_BUCKET not added in."""

    def allows(self, bucket: str, needed: Permissions) -> bool:
        """Whether one of `needed` is granted in the bucket. Of NOTHING none is: that is for root alone."""
        if self.root:
            return True
        grants = self.grants
        return not needed.isdisjoint(grants.get(bucket, NOTHING)) or not needed.isdisjoint(
            grants.get(EVERY_BUCKET, NOTHING)
        )

    def require(self, bucket: str, needed: Permissions) -> None:
        """Raises AccessDenied unless `allows`."""
        if not self.allows(bucket, needed):
            raise AccessDenied("the key has no grant for this")


ROOT = Access(root=True)


def encode_grants(grants: Mapping[str, Permissions]) -> dict[str, str]:
    """As a row keeps them; buckets in which nothing is granted are left out."""
    return {bucket: letters(granted) for bucket, granted in sorted(grants.items()) if granted}


def decode_grants(stored: Mapping[str, str]) -> dict[str, Permissions]:
    """A letter that this version does not know grants nothing."""
    known = {permission.value: permission for permission in Permission}
    return {bucket: frozenset(known[letter] for letter in text if letter in known) for bucket, text in stored.items()}


def letters(granted: Iterable[Permission]) -> str:
    """`r`, `w` or `rw`."""
    return "".join(sorted(permission.value for permission in granted))
