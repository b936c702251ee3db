"""The product's rows in the metadata map: their keys, their values, and the way from bytes and back.

docs/formats/rows.md is the specification; tests/vectors/rows.json holds golden bytes.

A key is one letter, which names the table, and components that keep their order as bytes. Values are msgpack arrays
whose first element is the version of their shape; `SealedMeta` seals them. Two invariants hold between rows:

- A key that has any version has an `O` row, its newest version, delete marker or not. `V` rows are the older ones.
- A content's `refs` is the number of rows that name it: versions, parts, and extents of composites and copied parts.
  At zero it is condemned: it gets a `D` row, ordered by time, and only from there its fragments are deleted.
"""

from typing import ClassVar, Self

import msgspec

from holdfast.core.errors import Corrupt
from holdfast.core.ids import ContentId, SessionId

BUCKETS = b"B"
OBJECTS = b"O"
VERSIONS = b"V"
CONTENTS = b"C"
CONDEMNED = b"D"
UPLOADS = b"U"
PARTS = b"P"
COMPLETED = b"E"
SESSIONS = b"S"
HEARTBEATS = b"H"
QUEUES = b"Q"
ACCESS_KEYS = b"A"
LAYOUTS = b"L"
PROGRESS = b"N"
KEYRING = b"K"
"""The wrapped keyring: the one row whose value is not sealed under the metadata key, which it holds."""

BUCKET_ID_BYTES = 8
"""Random: 2**32 buckets, made one after the other, collide with a probability of one half; `create` checks."""

_SEQUENCE_BYTES = 8
_SEQUENCE_MAX = 2**64 - 1


class _Value(msgspec.Struct, array_like=True, frozen=True):
    """A row's value. Appending a field with a default keeps old rows readable; anything else needs a new `shape`."""

    SHAPE: ClassVar[int] = 1

    def encode(self) -> bytes:
        return _encoder.encode(self)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Raises Corrupt. The bytes were authenticated when they were opened, so this is our bug or a newer version."""
        decoder = _decoders.get(cls)
        if decoder is None:
            decoder = _decoders[cls] = msgspec.msgpack.Decoder(cls)
        try:
            value = decoder.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise Corrupt(f"a row of {cls.__name__} cannot be decoded: {error}") from error
        if value.shape != cls.SHAPE:
            raise Corrupt(f"a row of {cls.__name__} has shape {value.shape}; this version reads {cls.SHAPE}")
        return value  # type: ignore[no-any-return]


_encoder = msgspec.msgpack.Encoder()
_decoders: dict[type, msgspec.msgpack.Decoder] = {}  # type: ignore[type-arg]


class BucketRow(_Value, frozen=True):
    shape: int
    id: bytes
    created_ns: int
    versioning: str
    region: str = ""
    tags: dict[str, str] = {}


class VersionRow(_Value, frozen=True):
    """A version: `O` when it is the newest of its key, `V` when it is older."""

    shape: int
    sequence: int
    """1 for the first version of a key, then one more than any before: the order of versions, taken in the commit."""
    unique: bytes
    """8 random bytes: with the sequence they make the version id, so that no id comes back after a deletion."""
    null: bool
    """Put while the bucket kept no versions; at most one version of a key is."""
    null_sequence: int
    """In an `O` row: the sequence of the older version that is `null`, 0 when there is none."""
    delete_marker: bool
    size: int
    etag: str
    modified_ns: int
    headers: dict[str, str]
    user_metadata: dict[str, str]
    checksums: dict[str, str]
    content: bytes | None
    """The content's id, or None when `inline` holds all of the bytes."""
    inline: bytes
    tags: dict[str, str] = {}
    given: int = 0
    """In an `O` row: the highest sequence that the key ever gave, when that version was removed; else 0."""


class Extent(msgspec.Struct, array_like=True, frozen=True):
    """`length` bytes of a simple content, from `skip` on."""

    content: bytes
    skip: int
    length: int


class ContentRow(_Value, frozen=True):
    """Bytes in blocks. Simple: one tree. Composite: extents of simple contents, each of which counts it in `refs`.

    A content that was coded anew became a composite of its successor, so an extent may lead to another composite.
    """

    shape: int
    refs: int
    size: int
    created_ns: int
    condemned_ns: int
    """0 while anything refers to it."""
    root: bytes | None
    """The tree's root entry, wrapped; None for a composite, and for what an upload left that was given up."""
    walk_root: bytes | None
    """The same for whoever may walk and not read; None for a composite."""
    extents: list[Extent]
    """Of a simple content: its first bytes, as far as they were coded anew. It is read from its tree until they are all
    there and it becomes a composite."""
    parts: list[int]
    """Sizes of the parts, of a multipart object."""
    code: tuple[str, int, int]
    """Matrix, k and m that data blocks were asked to be spread by; ("", 0, 0) for a composite."""
    layout_version: int
    """The newest layout that every block is known to be placed by."""
    part_checksums: dict[str, list[str]] = {}
    """Of a multipart object, by algorithm, those of the parts in their order."""


class UploadRow(_Value, frozen=True):
    shape: int
    key: str
    created_ns: int
    headers: dict[str, str]
    user_metadata: dict[str, str]
    checksums: dict[str, str]
    """The checksum that the object is to have: its type ("FULL_OBJECT", "COMPOSITE") by its algorithm."""
    tags: dict[str, str] = {}


class PartRow(_Value, frozen=True):
    shape: int
    size: int
    etag: str
    modified_ns: int
    checksums: dict[str, str]
    content: bytes | None
    """None for an empty part, and for one that was copied."""
    extents: list[Extent] = []
    """What a part that was copied is made of; each extent counts in the `refs` of its content."""


class CompletedRow(_Value, frozen=True):
    """Stands for an upload that was completed, so that a retry of Complete is answered as the first was."""

    shape: int
    unique: bytes
    """The unique part of the version that it made."""
    etag: str
    parts: bytes
    """BLAKE3 of the list of parts that was completed."""
    completed_ns: int
    left_out: bool = False
    """Parts that were left out are still to be released."""


class SessionRow(_Value, frozen=True):
    """A process that writes. Its publishes expect the row; whoever expires it changes the row first."""

    shape: int
    started_ns: int
    host: str
    process: int


class HeartbeatRow(_Value, frozen=True):
    shape: int
    beat: int
    """Counts up. An observer that sees no change for the session's time-out, by its own clock, may expire it."""


class RepairRow(_Value, frozen=True):
    """A block that is not whole: written in the commit that publishes it, or when a read found damage."""

    shape: int
    content: bytes
    position: int
    id: bytes
    matrix: str
    k: int
    m: int
    length: int
    noticed_ns: int


class AccessKeyRow(_Value, frozen=True):
    shape: int
    secret: str
    root: bool
    enabled: bool
    created_ns: int
    label: str = ""
    grants: dict[str, str] = {}
    """What the key may do, by bucket or "*" for every bucket: "r", "w" or "rw". Without meaning for the root key."""


class AccessKeysRow(_Value, frozen=True):
    """Changed in every commit that changes an access key: who keeps a copy of them sees by its token alone whether
    they changed."""

    shape: int
    changed_ns: int


class ProgressRow(_Value, frozen=True):
    shape: int
    data: bytes


def bucket_row_key(name: str) -> bytes:
    return BUCKETS + name.encode()


def object_row_key(bucket_id: bytes, key: bytes) -> bytes:
    """The key is the last component, so it needs neither escape nor end, and listings order by it alone."""
    return OBJECTS + bucket_id + key


def escape(key: bytes) -> bytes:
    """Order-preserving, and no escaped key is a prefix of another: NUL becomes 00 FF, the end is 00 00."""
    return key.replace(b"\0", b"\0\xff") + b"\0\0"


def unescape(escaped: bytes) -> tuple[bytes, int]:
    """The key at the start of `escaped`, and how many bytes it took with its end. Raises Corrupt."""
    position = 0
    while True:
        position = escaped.find(b"\0", position)
        if position < 0 or position + 1 >= len(escaped):
            raise Corrupt("an escaped key has no end")
        if escaped[position + 1] == 0:
            return escaped[:position].replace(b"\0\xff", b"\0"), position + 2
        if escaped[position + 1] != 0xFF:
            raise Corrupt("an escaped key holds an unknown escape")
        position += 2


def versions_prefix(bucket_id: bytes, key: bytes) -> bytes:
    return VERSIONS + bucket_id + escape(key)


def version_row_key(bucket_id: bytes, key: bytes, sequence: int) -> bytes:
    """Newest first: the sequence is counted down."""
    return versions_prefix(bucket_id, key) + (_SEQUENCE_MAX - sequence).to_bytes(_SEQUENCE_BYTES, "big")


def version_row_parts(row_key: bytes) -> tuple[bytes, int]:
    """The object's key and the version's sequence, out of a `V` row's key."""
    start = 1 + BUCKET_ID_BYTES
    key, used = unescape(row_key[start:])
    return key, _SEQUENCE_MAX - int.from_bytes(row_key[start + used :], "big")


def content_row_key(content: bytes) -> bytes:
    return CONTENTS + content


def condemned_row_key(when_ns: int, content: bytes) -> bytes:
    return CONDEMNED + when_ns.to_bytes(8, "big") + content


def condemned_row_parts(row_key: bytes) -> tuple[int, ContentId]:
    return int.from_bytes(row_key[1:9], "big"), ContentId(row_key[9:])


def uploads_prefix(bucket_id: bytes) -> bytes:
    return UPLOADS + bucket_id


def upload_row_key(bucket_id: bytes, key: bytes, upload: bytes) -> bytes:
    return UPLOADS + bucket_id + escape(key) + upload


def completed_row_key(bucket_id: bytes, key: bytes, upload: bytes) -> bytes:
    return COMPLETED + bucket_id + escape(key) + upload


def parts_prefix(upload: bytes) -> bytes:
    return PARTS + upload


def part_row_key(upload: bytes, number: int) -> bytes:
    return PARTS + upload + number.to_bytes(2, "big")


def session_row_key(session: SessionId) -> bytes:
    return SESSIONS + session


def heartbeat_row_key(session: SessionId) -> bytes:
    return HEARTBEATS + session


def repair_prefix() -> bytes:
    return QUEUES + b"repair\0"


def repair_row_key(block: bytes) -> bytes:
    return repair_prefix() + block


def access_key_row_key(access_key: str) -> bytes:
    """No access key is empty: the table's letter alone is the key of the `AccessKeysRow`."""
    return ACCESS_KEYS + access_key.encode()


def layout_row_key(version: int) -> bytes:
    return LAYOUTS + version.to_bytes(8, "big")


def progress_row_key(name: str) -> bytes:
    return PROGRESS + name.encode()
