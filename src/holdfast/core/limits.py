"""Limits: each a named constant, its unit last in the name, the reason above it."""

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
TIB = 1024 * GIB

# S3's own limit since 2025-12.
OBJECT_MAX_BYTES = 50 * TIB

# S3: part numbers run from 1 to this.
PARTS_MAX_COUNT = 10_000

# S3: every part but the last is at least this long.
PART_MIN_BYTES = 5 * MIB

# S3: one part, and one object put whole. Ten thousand of them are 50 TiB with room to spare.
PART_MAX_BYTES = 5 * GIB

# S3: a key is this long at most, in UTF-8.
KEY_MAX_BYTES = 1024

# S3: 3 to 63 letters, digits, hyphens and dots.
BUCKET_NAME_MIN_CHARS = 3
BUCKET_NAME_MAX_CHARS = 63

# S3: one page of a listing.
LIST_PAGE_MAX_COUNT = 1000

# S3: keys of one multi-delete.
DELETE_BATCH_MAX_COUNT = 1000

# S3: the sum of names and values of `x-amz-meta-*`.
USER_METADATA_MAX_BYTES = 2 * KIB

# S3: RequestTimeTooSkewed beyond.
CLOCK_SKEW_MAX_SECONDS = 15 * 60

# S3: X-Amz-Expires.
PRESIGN_MAX_SECONDS = 7 * 24 * 3600

# zos had 1 to 7; more copies than that are better spent on an erasure code.
COPIES_MAX_COUNT = 7

# ISA-L's Cauchy matrices stay invertible, and the commitment stays below 1.1 KiB.
FRAGMENTS_MAX_COUNT = 32

# The sealed form of the largest S3 block plus its envelope and padding must fit.
BLOCK_MAX_BYTES = 4 * MIB
SEALED_BLOCK_MAX_BYTES = BLOCK_MAX_BYTES + 256 * KIB

# The unit of proof: a range read checks whole leaves. Small enough to seek, large enough that hashes cost 0.05 %.
LEAF_BYTES = 64 * KIB

# A metadata value must fit a row with inline data, an entry list of 10,000 parts and room to grow.
ROW_VALUE_MAX_BYTES = 2 * MIB

# A key of 1,024 bytes with every byte escaped, its prefix and its version suffix.
ROW_KEY_MAX_BYTES = 2 * KEY_MAX_BYTES + 64

# One commit: a multi-delete of 1,000 keys changes at most a handful of rows for each.
COMMIT_CHANGES_MAX_COUNT = 16_384
