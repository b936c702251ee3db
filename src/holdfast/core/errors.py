"""The one error tree.

    HoldfastError
    ├── NotFound              nothing has that name
    ├── AlreadyExists         something has that name, and must not
    ├── PreconditionFailed    an expectation did not hold; says which
    ├── InvalidName           a bucket, key or option is spelled wrong
    ├── InvalidRequest        the request contradicts itself or a limit
    ├── QuotaExceeded         the caller has used up its share
    ├── AccessDenied          the caller may not
    ├── Corrupt               read, and wrong: never retried, always reported to repair
    ├── Unavailable           not now
    │   ├── Timeout           no answer in time
    │   ├── NodeDown          a drive or node does not answer
    │   ├── NotEnoughFragments  fewer good fragments, or fewer writable drives, than the code needs
    │   ├── Full              no space left
    │   └── Ambiguous         the outcome of a commit is unknown, and could not be settled by reading
    └── ProtocolError
        ├── LocalProtocolError   we broke the protocol: our bug
        └── RemoteProtocolError  they broke it

Rules. Missing things raise: no function returns None for "not there". Foreign errors (OSError, lmdb.Error, ...) are
mapped at the border where they come in. `code` is stable and travels on the wire; messages are for people and may
change. `retryable` says that the same call may succeed later without any change by the caller.
"""

from typing import ClassVar


class HoldfastError(Exception):
    """The root of every error that Holdfast raises on purpose."""

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False


class NotFound(HoldfastError):
    """Nothing has that name."""

    code = "not_found"


class AlreadyExists(HoldfastError):
    """Something has that name already, and the call wanted it free."""

    code = "already_exists"


class PreconditionFailed(HoldfastError):
    """An expectation of the caller did not hold, so nothing was changed.

    `failed` are the positions, in the caller's list of expectations, of those known not to hold. The engine stops
    at the first, so the tuple has at least one entry, not every one.
    """

    code = "precondition_failed"

    def __init__(self, message: str = "", failed: tuple[int, ...] = ()) -> None:
        super().__init__(message or f"expectation {', '.join(map(str, failed))} does not hold")
        self.failed = failed


class InvalidName(HoldfastError):
    """A bucket name, object key, access key or option is spelled in a way that is not allowed."""

    code = "invalid_name"


class InvalidRequest(HoldfastError):
    """The request contradicts itself, or exceeds a limit of `core.limits`."""

    code = "invalid_request"


class QuotaExceeded(HoldfastError):
    """The caller has used up the share that it was granted."""

    code = "quota_exceeded"


class AccessDenied(HoldfastError):
    """The caller may not do this."""

    code = "access_denied"


class Corrupt(HoldfastError):
    """Bytes were read and are wrong. The same read gives the same answer: never retried, always told to repair."""

    code = "corrupt"


class Unavailable(HoldfastError):
    """Not now: the same call may succeed later."""

    code = "unavailable"
    retryable = True


class Timeout(Unavailable):
    """No answer within the time that the caller gave."""

    code = "timeout"


class NodeDown(Unavailable):
    """A drive or a node does not answer, or was taken out after an I/O error."""

    code = "node_down"


class NotEnoughFragments(Unavailable):
    """Fewer good fragments to read, or fewer drives to write to, than the code needs."""

    code = "not_enough_fragments"


class Full(Unavailable):
    """No space left. Reads, listings and deletes go on."""

    code = "full"


class Ambiguous(Unavailable):
    """The outcome of a commit is unknown, and reading again could not settle it. Never a guess."""

    code = "ambiguous"


class ProtocolError(HoldfastError):
    """A protocol was broken, by us or by them."""

    code = "protocol_error"


class LocalProtocolError(ProtocolError):
    """We broke the protocol: a bug here."""

    code = "local_protocol_error"


class RemoteProtocolError(ProtocolError):
    """The other side broke the protocol."""

    code = "remote_protocol_error"
