"""Tags of objects and buckets: what S3 allows them to be.

Source: Amazon S3 User Guide, "Categorizing your objects using tags"; AWS Billing User Guide, "Tag restrictions".
"""

import unicodedata
from collections.abc import Sequence

from holdfast.objects.errors import InvalidTag

OBJECT_TAGS_MAX_COUNT = 10
BUCKET_TAGS_MAX_COUNT = 50
KEY_MAX_CHARS = 128
VALUE_MAX_CHARS = 256

_MARKS = frozenset("_.:/=+-@")
_RESERVED_PREFIX = "aws:"


def check_tags(tags: Sequence[tuple[str, str]], limit: int) -> dict[str, str]:
    """The tags by key. Raises InvalidTag."""
    if len(tags) > limit:
        raise InvalidTag(f"there are {len(tags)} tags, and at most {limit} are allowed")
    found: dict[str, str] = {}
    for key, value in tags:
        if key in found:
            raise InvalidTag("two tags have the same key")
        if not 1 <= len(key) <= KEY_MAX_CHARS or not _is_allowed(key) or key.startswith(_RESERVED_PREFIX):
            raise InvalidTag("the TagKey you have provided is invalid")
        if len(value) > VALUE_MAX_CHARS or not _is_allowed(value):
            raise InvalidTag("the TagValue you have provided is invalid")
        found[key] = value
    return found


def _is_allowed(text: str) -> bool:
    """Letters, digits and spaces of any script, and a few marks."""
    return all(character in _MARKS or unicodedata.category(character)[0] in "LNZ" for character in text)
