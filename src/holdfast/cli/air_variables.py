"""DATA, PARITY, NUMNODES, METACOPIES, NODEPATH and MATRIXTYPE, as the erasure-coding proof of concept had them.

Rules. Their names are anybody's, so they count only where air is asked for, and weigh less than every setting of our
own, wherever that stands; one that is outweighed is not even read. What one of them cannot mean here is an error.
docs/air.md says what becomes of each.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from holdfast.core.errors import InvalidRequest
from holdfast.erasure.code import Matrix

# The types of pyjerasure. The others exist for two parity chunks only, and are no Reed-Solomon codes.
_MATRICES: Mapping[str, Matrix] = {
    "cauchy": Matrix.CAUCHY,
    "cauchy_good": Matrix.CAUCHY,
    "rs_vandermonde": Matrix.VANDERMONDE,
    "vandermonde": Matrix.VANDERMONDE,
}


def settings_of(environment: Mapping[str, str], unset: Collection[str]) -> dict[str, Any]:
    """Values for those settings that are `unset`, by field name. Raises InvalidRequest."""
    values: dict[str, Any] = {}
    if "code" in unset and "copies" in unset and ("DATA" in environment or "PARITY" in environment):
        if not ("DATA" in environment and "PARITY" in environment):
            raise InvalidRequest("DATA and PARITY go together: so many data chunks, and so many that may be lost")
        values["code"] = (_count(environment, "DATA"), _count(environment, "PARITY"))
    if "matrix" in unset and (named := environment.get("MATRIXTYPE")) is not None:
        matrix = _MATRICES.get(named)
        if matrix is None:
            raise InvalidRequest(f"MATRIXTYPE: {named!r} is none of: {', '.join(_MATRICES)}")
        values["matrix"] = str(matrix)
    if "metacopies" in unset and "METACOPIES" in environment:
        values["metacopies"] = _count(environment, "METACOPIES")
    return values


def drives_of(environment: Mapping[str, str]) -> tuple[Path, ...]:
    """NODEPATH/1 to NODEPATH/NUMNODES; none when neither is set. Raises InvalidRequest."""
    root = environment.get("NODEPATH")
    if root is None and "NUMNODES" not in environment:
        return ()
    if not root or "NUMNODES" not in environment:
        raise InvalidRequest("NODEPATH and NUMNODES go together: the drives are NODEPATH/1 to NODEPATH/NUMNODES")
    return tuple(Path(root) / str(number) for number in range(1, _count(environment, "NUMNODES") + 1))


def _count(environment: Mapping[str, str], name: str) -> int:
    text = environment[name]
    if not (text.isascii() and text.isdigit()) or not 0 < int(text[:9]) < 10_000:
        raise InvalidRequest(f"{name}: {text!r} is not a number from 1 on")
    return int(text)
