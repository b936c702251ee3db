"""The TLS certificate of a running server: whether it was replaced, and who listens with which.

Rules. Files are compared by what they hold, so links that are swapped, and files that are written in place, are both
seen. A pair that does not fit together, or was read half-written, is never served: the one before is, until the files
are right.
"""

import logging
import ssl
from hashlib import sha256
from pathlib import Path

_LOGGER = logging.getLogger(__name__)

_LISTEN = "0A"  # TCP_LISTEN of the kernel's include/net/tcp_states.h


class Certificate:
    """The files of --tls-cert and --tls-key, and what of them is served."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """What the files hold now is taken for served."""
        self._paths = (certificate, key)
        self._served = self._seen = self._read()

    def renewed(self) -> bool:
        """Whether there is another pair to serve. Once it has said so, that pair is taken for served. Called every
        second or so: a change counts when it was still so at the next call."""
        now = self._read()
        settled, self._seen = now == self._seen, now
        if now == self._served or not settled:
            return False
        self._served = now
        certificate, key = self._paths
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=_no_password)
        except (OSError, ValueError) as error:
            _LOGGER.error("%s was changed and cannot be served, the one before still is: %s", certificate, error)
            return False
        return True

    def _read(self) -> bytes:
        digest = sha256()
        for path in self._paths:
            try:
                digest.update(sha256(path.read_bytes()).digest())
            except OSError as error:
                digest.update(str(error.errno).encode())
        return digest.digest()


def _no_password() -> str:
    raise ValueError("the key is protected by a password")


def listeners(port: int) -> frozenset[int]:
    """The inodes of sockets that listen on a port, one for each worker, whatever the address. Linux's own tables:
    a worker cannot say that it listens, since its server begins to behind its last line of ours."""
    found: set[int] = set()
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        try:
            lines = table.read_text().splitlines()[1:]
        except FileNotFoundError:  # a kernel without IPv6
            continue
        for line in lines:
            _, local, _, state, _, _, _, _, _, inode, *_ = line.split()
            if state == _LISTEN and int(local.rpartition(":")[2], 16) == port:
                found.add(int(inode))
    return frozenset(found)
