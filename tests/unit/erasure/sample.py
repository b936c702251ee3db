"""Sealed blocks to code: bytes that look random and are the same on every machine."""

from blake3 import blake3

from holdfast.erasure import Code, Matrix


def sealed(length: int, seed: int = 0) -> bytes:
    return blake3(f"sealed {seed}".encode()).digest(length=length)


def code(matrix: str, k: int, m: int) -> Code:
    return Code(Matrix(matrix), k, m)
