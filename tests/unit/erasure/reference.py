"""The formats of docs/formats/{erasure,commitment}.md in plain Python, slowly: what any other implementation does.

Shares nothing with `holdfast.erasure` but BLAKE3; GF(2**8) is worked out from its polynomial.
"""

from blake3 import blake3

POLYNOMIAL = 0x11D
LEAF = 64 * 1024


def multiply(a: int, b: int) -> int:
    """a * b in GF(2**8), bit by bit."""
    product = 0
    while b:
        if b & 1:
            product ^= a
        a <<= 1
        if a & 0x100:
            a ^= POLYNOMIAL
        b >>= 1
    return product


def inverse(a: int) -> int:
    """a**254, which is 1/a."""
    power = 1
    for _ in range(254):
        power = multiply(power, a)
    return power


def parity_rows(matrix: str, k: int, m: int) -> list[list[int]]:
    if matrix == "cauchy":
        return [[inverse((k + r) ^ j) for j in range(k)] for r in range(m)]
    rows = []
    for r in range(m):
        base, row = 1, []
        for _ in range(r):
            base = multiply(base, 2)
        power = 1
        for _ in range(k):
            row.append(power)
            power = multiply(power, base)
        rows.append(row)
    return rows


def scale(factor: int, data: bytes) -> int:
    """`data` times `factor`, as a big integer, so that sums are one xor."""
    return int.from_bytes(data.translate(bytes(multiply(factor, x) for x in range(256))), "little")


def pieces(sealed: bytes, matrix: str, k: int, m: int) -> list[bytes]:
    """All k+m payloads of an erasure-coded block."""
    length = -(-len(sealed) // k)
    length = -(-length // 64) * 64
    padded = sealed.ljust(k * length, b"\0")
    data = [padded[i * length : (i + 1) * length] for i in range(k)]
    parity = []
    for row in parity_rows(matrix, k, m):
        total = 0
        for factor, piece in zip(row, data, strict=True):
            total ^= scale(factor, piece)
        parity.append(total.to_bytes(length, "little"))
    return data + parity


def invert(square: list[list[int]]) -> list[list[int]]:
    """Gauss-Jordan over GF(2**8). ZeroDivisionError when there is no inverse."""
    size = len(square)
    work = [row[:] + [int(i == j) for j in range(size)] for i, row in enumerate(square)]
    for column in range(size):
        pivot = next((r for r in range(column, size) if work[r][column]), None)
        if pivot is None:
            raise ZeroDivisionError
        work[column], work[pivot] = work[pivot], work[column]
        factor = inverse(work[column][column])
        work[column] = [multiply(factor, x) for x in work[column]]
        for r in range(size):
            if r != column and work[r][column]:
                f = work[r][column]
                work[r] = [x ^ multiply(f, y) for x, y in zip(work[r], work[column], strict=True)]
    return [row[size:] for row in work]


def recover(have: dict[int, bytes], matrix: str, k: int, m: int, length: int) -> bytes:
    """The sealed block of `length` bytes from k payloads."""
    rows = [[int(i == j) for j in range(k)] for i in range(k)] + parity_rows(matrix, k, m)
    chosen = sorted(have)[:k]
    out = []
    for row in invert([rows[i] for i in chosen]):
        total = 0
        for factor, index in zip(row, chosen, strict=True):
            total ^= scale(factor, have[index])
        out.append(total.to_bytes(len(have[chosen[0]]), "little"))
    return b"".join(out)[:length]


def keyed(context: str, data: bytes) -> bytes:
    return blake3(data, key=blake3(context.encode()).digest()).digest()


def leaves(payload: bytes) -> bytes:
    return b"".join(keyed("holdfast v1 fragment leaf", payload[i : i + LEAF]) for i in range(0, len(payload), LEAF))


def root(payload: bytes) -> bytes:
    return keyed("holdfast v1 fragment root", len(payload).to_bytes(8, "little") + leaves(payload))


def commitment(sealed: bytes, matrix: str, k: int, m: int) -> bytes:
    number = {"copies": 0, "cauchy": 1, "vandermonde": 2}[matrix]
    payloads = [sealed] if matrix == "copies" else pieces(sealed, matrix, k, m)
    header = bytes([1, number, k, 0 if matrix == "copies" else m]) + len(sealed).to_bytes(4, "little")
    return header + b"".join(root(payload) for payload in payloads)


def block_id(encoded: bytes) -> bytes:
    return keyed("holdfast v1 block id", encoded)
