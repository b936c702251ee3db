"""Bytes to sealed bytes: blocks, rows, tags, and the keyring that all of them hang from.

    passphrase, key file ──> key-encryption key ──wraps──> keyring ──epochs──> metadata key   seals row values
                                                                    ├────────> read-wrap key  wraps root read keys
                                                                    ├────────> walk-wrap key  wraps root walk keys
                                                                    ├────────> tag key        seals fragment tags
                                                                    └────────> signing key    signs layouts
    a block's key is drawn for that one sealing, and kept in the sealed entry of its parent

- `derive`     one-way key derivation; every context string of the product
- `blocks`     compress, pad, seal: docs/formats/seal.md
- `envelope`   small messages under a long-lived key: rows, root keys, tags
- `once`       a message under a key of its own
- `tags`       what a fragment's tag says: docs/formats/tag.md
- `keyring`    epochs of keys, rotation, capabilities: docs/formats/keyring.md
- `kek`        the key-encryption key, and the wrapped keyring
- `backup`     a keyring on paper
- `signature`  Ed25519 over layouts

Pure: no I/O, no clock, no randomness of its own. Whatever does not open raises Corrupt. Nothing here prints a key:
keys are left out of every `repr` and every message.
"""
