"""Ids: what they are made of, and how long they are.

A block's id is a hash and commits to the block's fragments; every other id is drawn at random and says nothing.
All are plain `bytes` at run time: they are map keys on the hottest paths.
"""

from typing import NewType

from holdfast.core.clock import Randomness

Buffer = bytes | bytearray | memoryview
"""What functions accept as bytes to read. A `memoryview` must be contiguous and of format 'B'."""

BlockId = NewType("BlockId", bytes)
"""BLAKE3-256 over a block's commitment: docs/formats/commitment.md."""

DriveId = NewType("DriveId", bytes)
"""Random, 16 bytes, written on the drive when it is first given to a store."""

StoreId = NewType("StoreId", bytes)
"""Random, 16 bytes, the same on every drive of a store."""

SessionId = NewType("SessionId", bytes)
"""Random, 8 bytes, names a process that writes, for as long as it writes."""

ContentId = NewType("ContentId", bytes)
"""16 bytes, names a content row: the session that wrote it, then 8 random bytes. So whoever finds a fragment whose
content has no row yet knows which session to ask about before it calls the fragment an orphan."""

Token = NewType("Token", bytes)
"""Random, 16 bytes, chosen by the committer; every row that a commit writes carries it."""

BLOCK_ID_BYTES = 32
RANDOM_ID_BYTES = 16
"""128 random bits: 2**40 ids, more than a store will ever draw, collide with a probability below 2**-48."""
SESSION_ID_BYTES = 8
"""64 random bits: a few thousand processes over a store's life collide with a probability below 2**-40."""


def new_drive_id(randomness: Randomness) -> DriveId:
    return DriveId(randomness.bytes(RANDOM_ID_BYTES))


def new_store_id(randomness: Randomness) -> StoreId:
    return StoreId(randomness.bytes(RANDOM_ID_BYTES))


def new_session_id(randomness: Randomness) -> SessionId:
    return SessionId(randomness.bytes(SESSION_ID_BYTES))


def new_content_id(session: SessionId, randomness: Randomness) -> ContentId:
    return ContentId(session + randomness.bytes(RANDOM_ID_BYTES - SESSION_ID_BYTES))


def session_of(content: ContentId) -> SessionId:
    """The session that wrote, or is writing, this content."""
    return SessionId(content[:SESSION_ID_BYTES])


def new_token(randomness: Randomness) -> Token:
    return Token(randomness.bytes(RANDOM_ID_BYTES))
