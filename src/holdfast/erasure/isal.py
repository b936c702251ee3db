"""ISA-L's Reed-Solomon arithmetic, called without copies and without the GIL.

The library is the one inside the pyeclib wheel (`libisal-pyeclib.so.2`); a system's own `libisal.so.2` serves where
pyeclib was built from source. Calling it directly instead of through pyeclib saves three copies of every byte and
lets other threads run: docs/adr/0003-erasure-code-and-commitment.md has the measurements. The bytes are the same, and
tests/unit/erasure holds them to that against pyeclib and against a reference in plain Python.

Rules: every buffer is pinned for the length of the call (so nothing can resize or free it), lengths are checked here
because C does not, and a library whose first product is wrong is refused.
"""

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from pathlib import Path

import pyeclib

from holdfast.core.errors import Unavailable
from holdfast.core.ids import Buffer
from holdfast.erasure.code import Code, Matrix

WHEEL_PATTERN = "libisal-pyeclib.so*"
SYSTEM_NAMES = ("libisal.so.2", "libisal.so")

# Bytes of ISA-L's expanded multiplication table for one coefficient.
COEFFICIENT_TABLE_BYTES = 32

# A store uses a handful of codes; each loss pattern of 4+2 is one of 15, of 16+4 one of 4,845.
DECODERS_KEPT_COUNT = 1024

PIN_READABLE = 0
PIN_WRITABLE = 1


class _Pin(ctypes.Structure):
    """CPython's Py_buffer, part of its stable ABI since 3.11."""

    _fields_ = (
        ("address", ctypes.c_void_p),
        ("owner", ctypes.c_void_p),
        ("length", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


_pin = ctypes.pythonapi.PyObject_GetBuffer
_pin.argtypes = (ctypes.py_object, ctypes.POINTER(_Pin), ctypes.c_int)
_pin.restype = ctypes.c_int
_unpin = ctypes.pythonapi.PyBuffer_Release
_unpin.argtypes = (ctypes.POINTER(_Pin),)
_unpin.restype = None


@contextmanager
def _pinned(buffers: Sequence[Buffer], length: int, flags: int) -> Iterator[ctypes.Array[ctypes.c_void_p]]:
    """Addresses of `buffers`, each `length` bytes long, which stay where they are meanwhile."""
    pins: list[_Pin] = []
    try:
        for buffer in buffers:
            pin = _Pin()
            _pin(buffer, ctypes.byref(pin), flags)
            pins.append(pin)
            assert pin.length == length, f"a piece of {pin.length} bytes among pieces of {length}"
        yield (ctypes.c_void_p * len(pins))(*[pin.address for pin in pins])
    finally:
        for pin in pins:
            _unpin(ctypes.byref(pin))


@cache
def _library() -> ctypes.CDLL:
    """The library, its functions declared and tried once."""
    wheel = Path(pyeclib.__file__).parent.parent / "pyeclib.libs"
    for name in [*(str(path) for path in sorted(wheel.glob(WHEEL_PATTERN))), *SYSTEM_NAMES]:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        _declare(library)
        return library
    raise Unavailable(f"ISA-L not found: neither in {wheel} nor as {SYSTEM_NAMES[0]} (install the pyeclib wheel)")


def _declare(library: ctypes.CDLL) -> None:
    pointer, number = ctypes.c_void_p, ctypes.c_int
    library.gf_mul.argtypes, library.gf_mul.restype = (ctypes.c_ubyte, ctypes.c_ubyte), ctypes.c_ubyte
    library.gf_gen_cauchy1_matrix.argtypes, library.gf_gen_cauchy1_matrix.restype = (pointer, number, number), None
    library.gf_gen_rs_matrix.argtypes, library.gf_gen_rs_matrix.restype = (pointer, number, number), None
    library.gf_invert_matrix.argtypes, library.gf_invert_matrix.restype = (pointer, pointer, number), number
    library.ec_init_tables.argtypes, library.ec_init_tables.restype = (number, number, pointer, pointer), None
    library.ec_encode_data.argtypes, library.ec_encode_data.restype = (number, number, number, *[pointer] * 3), None
    # x * x**7 = x**8 = x**4 + x**3 + x**2 + 1: another field would give another product, and other bytes.
    if library.gf_mul(0x02, 0x80) != 0x1D:
        raise Unavailable("this ISA-L multiplies in another field than 0x11d")


@lru_cache
def generator(code: Code) -> bytes:
    """The code's (k+m) x k matrix over GF(2**8), row by row; its first k rows are the identity."""
    matrix = ctypes.create_string_buffer(code.width * code.k)
    if code.matrix is Matrix.CAUCHY:
        _library().gf_gen_cauchy1_matrix(matrix, code.width, code.k)
    else:
        assert code.matrix is Matrix.VANDERMONDE, "copies have no matrix"
        _library().gf_gen_rs_matrix(matrix, code.width, code.k)
    return matrix.raw


def _tables(rows: bytes, k: int) -> ctypes.Array[ctypes.c_char]:
    tables = ctypes.create_string_buffer(COEFFICIENT_TABLE_BYTES * len(rows))
    _library().ec_init_tables(k, len(rows) // k, rows, tables)
    return tables


@lru_cache
def parity_tables(code: Code) -> ctypes.Array[ctypes.c_char]:
    """What `multiply` needs to make the m parity pieces from the k data pieces."""
    return _tables(generator(code)[code.k * code.k :], code.k)


@lru_cache(DECODERS_KEPT_COUNT)
def recovery_tables(code: Code, have: tuple[int, ...], want: tuple[int, ...]) -> ctypes.Array[ctypes.c_char]:
    """What `multiply` needs to make the data pieces `want` from the k pieces `have`, given in that order."""
    k, matrix = code.k, generator(code)
    assert len(have) == k, f"{k} pieces are needed, not {len(have)}"
    square = ctypes.create_string_buffer(b"".join(matrix[i * k : (i + 1) * k] for i in have), k * k)
    inverse = ctypes.create_string_buffer(k * k)
    singular = _library().gf_invert_matrix(square, inverse, k)
    assert singular == 0, f"{code} cannot be decoded from {have}"
    return _tables(b"".join(inverse.raw[i * k : (i + 1) * k] for i in want), k)


def multiply(tables: ctypes.Array[ctypes.c_char], sources: Sequence[Buffer], targets: Sequence[Buffer]) -> None:
    """targets = matrix x sources, all of one length; `targets` are writable and overlap nothing. Releases the GIL."""
    length = len(sources[0])
    assert len(tables) == COEFFICIENT_TABLE_BYTES * len(sources) * len(targets), "tables of another shape"
    with _pinned(sources, length, PIN_READABLE) as inputs, _pinned(targets, length, PIN_WRITABLE) as outputs:
        _library().ec_encode_data(length, len(sources), len(targets), tables, inputs, outputs)
