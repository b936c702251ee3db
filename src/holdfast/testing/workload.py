"""Clients that use a few keys as hard as they can and write down what they saw: histories for the checker.

Each client is a process of its own with one connection. It waits for each answer, retries nothing, and tells apart
what was refused, what was done, and what nobody knows. Every body says whose it is and how it goes on, so wrong bytes
are found at once, whatever their ETag; the ETag is the value in the history.
"""

import multiprocessing
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import md5
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path
from random import Random  # noqa: TID251 - seeded: the same mix every time

import msgspec

from holdfast.core.limits import KIB, MIB
from holdfast.testing.histories import ABSENT, IS, Action, Observed, Operation, Outcome, listing_reads, load, save
from holdfast.testing.s3_client import Answer, NoAnswer, NotSent, S3Client
from holdfast.testing.signing import Signer

# While nobody listens there is nothing to learn from knocking faster.
NOT_SENT_PAUSE_SECONDS = 0.01

# Begins every body: client, serial, length.
LABEL_BYTES = 48

_POOL = Random(1).randbytes(4 * MIB)

READ_MIX = {"get": 40, "put": 25, "delete": 8, "create": 8, "swap": 14, "list": 5}
"""Mostly reads, for the question whether they are right."""

WRITE_MIX = {"get": 10, "put": 40, "delete": 10, "create": 10, "swap": 15, "list": 5, "multipart": 10}
"""Mostly writes, for the question what becomes of them."""

SWAP_MIX = {"get": 34, "put": 4, "delete": 2, "create": 10, "swap": 50}
"""Mostly compare-and-swap, of what each client saw last, for the question whether two can both be first."""

SMALL_BODIES = (100, 3 * KIB)
MIXED_BODIES = (100, 3 * KIB, 40 * KIB, 300 * KIB, 1200 * KIB)
"""Inline, and in one block, and in several."""


@dataclass(frozen=True, slots=True)
class Workload:
    """What every client does."""

    address: tuple[str, int]
    signer: Signer
    bucket: str
    keys: tuple[str, ...]
    mix: Mapping[str, int]
    sizes: tuple[int, ...]
    operations: int | None = None
    """Of each client; None goes on until it is told to stop."""
    seed: int = 0


@dataclass(slots=True)
class Report:
    """What came of it, over all clients."""

    history: list[Operation]
    requests: int
    wrong: list[str] = field(default_factory=list)
    """Bytes or answers that no history can excuse."""
    statuses: dict[str, int] = field(default_factory=dict)
    """How often each status was answered, by action; "no answer" and "not sent" among them."""


def make_body(client: int, serial: int, length: int) -> bytes:
    """A body that tells whose it is; at least LABEL_BYTES long."""
    length = max(length, LABEL_BYTES)
    label = f"{client} {serial} {length} ".encode().ljust(LABEL_BYTES, b".")
    start = (client * 131071 + serial * 8191) % (len(_POOL) // 2)
    return label + _POOL[start : start + length - LABEL_BYTES]


def body_fault(body: bytes) -> str | None:
    """What is wrong with a body, or None when it is one that `make_body` made, whole."""
    try:
        client, serial, length, *_ = body[:LABEL_BYTES].split(b" ")
        expected = make_body(int(client), int(serial), int(length))
    except ValueError:
        return f"no label in {body[:LABEL_BYTES]!r}"
    if body == expected:
        return None
    same = next(
        (i for i, (a, b) in enumerate(zip(body, expected, strict=False)) if a != b), min(len(body), len(expected))
    )
    return f"{body[:LABEL_BYTES]!r}: {len(body)} bytes, wrong from byte {same}"


class Client:
    """One client, for a history."""

    def __init__(self, workload: Workload, number: int) -> None:
        self._workload = workload
        self._number = number
        self._s3 = S3Client(workload.address, workload.signer)
        self._random = Random(workload.seed * 1000 + number)
        self._serial = 0
        self._seen: dict[str, str] = {}
        self.report = Report([], 0)

    def run(self, stop: Event) -> None:
        actions, weights = zip(*self._workload.mix.items(), strict=True)
        while not stop.is_set() and self.report.requests != self._workload.operations:
            key = self._random.choice(self._workload.keys)
            self.step(self._random.choices(actions, weights)[0], key)
        self.close()

    def close(self) -> None:
        self._s3.close()

    def step(self, action: str, key: str) -> None:
        """One request, and what it says."""
        self.report.requests += 1
        started = time.monotonic_ns()
        try:
            match action:
                case "get":
                    self._get(key, started)
                case "list":
                    self._list(started)
                case _:
                    self._write(action, key, started)
        except NotSent:
            self._count(action, "not sent")
            time.sleep(NOT_SENT_PAUSE_SECONDS)
        except NoAnswer:
            self._count(action, "no answer")

    def _count(self, action: str, status: object) -> None:
        name = f"{action}: {status}"
        self.report.statuses[name] = self.report.statuses.get(name, 0) + 1

    def _get(self, key: str, started: int) -> None:
        answer = self._s3.get(self._workload.bucket, key)
        ended = time.monotonic_ns()
        self._count("get", answer.status)
        if answer.status == 404:
            self._seen.pop(key, None)
            self.report.history.append(Operation(self._number, key, Action.READ, started, ended, None))
        elif answer.status == 200:
            fault = body_fault(answer.body)
            if fault is None and "-" not in answer.etag and md5(answer.body).hexdigest() != answer.etag:  # noqa: S324
                fault = f"the ETag {answer.etag} is not that of {answer.body[:LABEL_BYTES]!r}"
            if fault is not None:
                self.report.wrong.append(f"GET {key}: {fault}")
            self._seen[key] = answer.etag
            self.report.history.append(Operation(self._number, key, Action.READ, started, ended, answer.etag))
        elif answer.status < 500:
            self.report.wrong.append(f"GET {key}: {answer.status} {answer.body[:200]!r}")

    def _list(self, started: int) -> None:
        page = self._s3.list_page(self._workload.bucket)
        ended = time.monotonic_ns()
        self._count("list", 200)
        observed = Observed(self._number, started, ended, page.etags)
        self.report.history.extend(listing_reads(observed, self._workload.keys))
        for key in page.etags.keys() - set(self._workload.keys):
            self.report.wrong.append(f"a key that nobody wrote is listed: {key}")

    def _write(self, action: str, key: str, started: int) -> None:
        self._serial += 1
        body = make_body(self._number, self._serial, self._random.choice(self._workload.sizes))
        # Until the answer is there, and if none comes, nobody knows.
        unknown = self._operation(action, key, started, body)
        try:
            answer = self._send(action, unknown, body)
        except NotSent:
            raise
        except NoAnswer:
            self.report.history.append(unknown)
            raise
        ended = time.monotonic_ns()
        self._count(action, answer.status)
        match answer.status:
            case 200 | 204:
                self.report.history.append(replace(unknown, ended=ended, outcome=Outcome.DONE))
                self._done(action, unknown, answer)
            case 412 | 404 if unknown.condition is not None:
                self.report.history.append(replace(unknown, ended=ended, outcome=Outcome.REFUSED))
            case 409:
                pass  # a conflict that the server would not wait for: nothing was done
            case status if status >= 500:
                self.report.history.append(unknown)
            case status:
                self.report.wrong.append(f"{action} {key}: {status} {answer.body[:200]!r}")

    def _operation(self, action: str, key: str, started: int, body: bytes) -> Operation:
        value: str | None = md5(body).hexdigest()  # noqa: S324 - it is what an ETag is
        condition = expected = None
        match action:
            case "create":
                condition = ABSENT
            case "swap":
                # Of a key that was not seen, with an ETag that nothing has.
                condition, expected = IS, self._seen.get(key, "0" * 32)
            case "delete":
                value = None
            case "multipart":
                value = md5(md5(body).digest()).hexdigest() + "-1"  # noqa: S324
        return Operation(self._number, key, Action.WRITE, started, started, value, Outcome.UNKNOWN, condition, expected)

    def _done(self, action: str, operation: Operation, answer: Answer) -> None:
        if operation.value is None:
            self._seen.pop(operation.key, None)
            return
        self._seen[operation.key] = operation.value
        if action != "multipart" and answer.etag != operation.value:
            self.report.wrong.append(f"{action} {operation.key}: the ETag {answer.etag} is not {operation.value}")

    def _send(self, action: str, operation: Operation, body: bytes) -> Answer:
        bucket, key = self._workload.bucket, operation.key
        match action:
            case "delete":
                return self._s3.delete(bucket, key)
            case "create":
                return self._s3.put(bucket, key, body, {"if-none-match": "*"})
            case "swap":
                return self._s3.put(bucket, key, body, {"if-match": f'"{operation.expected}"'})
            case "multipart":
                # Nothing shows before the last request, so if any of them was not sent, nothing happened.
                return self._s3.multipart(bucket, key, [body])
            case _:
                return self._s3.put(bucket, key, body)


def _run_client(workload: Workload, number: int, stop: Event, folder: Path) -> None:
    """The body of a client's process."""
    client = Client(workload, number)
    client.run(stop)
    save(folder / f"history-{number}.jsonl", client.report.history)
    rest = Report([], client.report.requests, client.report.wrong, client.report.statuses)
    (folder / f"report-{number}.json").write_bytes(msgspec.json.encode(rest))


class Clients:
    """`count` clients at work in processes of their own; their histories are left in `folder`."""

    def __init__(self, workload: Workload, count: int, folder: Path) -> None:
        self._folder = folder
        context = multiprocessing.get_context("spawn")
        self._stop = context.Event()
        self._processes: list[BaseProcess] = [
            context.Process(target=_run_client, args=(workload, number, self._stop, folder), daemon=True)
            for number in range(count)
        ]
        for process in self._processes:
            process.start()

    def running(self) -> bool:
        return any(process.is_alive() for process in self._processes)

    def finish(self, *, seconds: float = 120.0) -> Report:
        """Tell them to stop, or with a set number of operations wait for it with `wait`; what they saw."""
        self._stop.set()
        return self.wait(seconds=seconds)

    def wait(self, *, seconds: float = 120.0) -> Report:
        deadline = time.monotonic() + seconds
        for process in self._processes:
            process.join(max(0.0, deadline - time.monotonic()))
            if process.exitcode != 0:
                self.abandon()
                raise RuntimeError(f"a client ended with {process.exitcode}")
        return gather(self._folder, len(self._processes))

    def abandon(self) -> None:
        for process in self._processes:
            process.kill()


def gather(folder: Path, count: int) -> Report:
    """One report of all clients'."""
    total = Report([], 0)
    for number in range(count):
        report = msgspec.json.decode((folder / f"report-{number}.json").read_bytes(), type=Report)
        total.history += load(folder / f"history-{number}.jsonl")
        total.requests += report.requests
        total.wrong += report.wrong
        for status, times in report.statuses.items():
            total.statuses[status] = total.statuses.get(status, 0) + times
    return total


def final_reads(s3: S3Client, bucket: str, keys: Sequence[str], process: int = -1) -> tuple[list[Operation], list[str]]:
    """Read and list everything once it is quiet: operations for the history, and what was wrong."""
    history: list[Operation] = []
    wrong: list[str] = []
    started = time.monotonic_ns()
    listed = s3.list_all(bucket)
    ended = time.monotonic_ns()
    history.extend(listing_reads(Observed(process, started, ended, listed), keys))
    for key in sorted({*keys, *listed}):
        started = time.monotonic_ns()
        answer = s3.get(bucket, key)
        ended = time.monotonic_ns()
        if answer.status not in (200, 404):
            wrong.append(f"GET {key}: {answer.status} {answer.body[:200]!r}")
            continue
        if answer.status == 200 and (fault := body_fault(answer.body)) is not None:
            wrong.append(f"GET {key}: {fault}")
        value = answer.etag if answer.status == 200 else None
        history.append(Operation(process, key, Action.READ, started, ended, value))
    return history, wrong
