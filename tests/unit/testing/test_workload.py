"""The clients that write histories: their bodies tell, and what they note down is what happened."""

from collections.abc import Mapping
from hashlib import md5
from pathlib import Path
from random import Random

import pytest

from holdfast.testing.histories import Outcome, save
from holdfast.testing.linearizability import check
from holdfast.testing.s3_client import Answer, ListedPage, NoAnswer, NotSent
from holdfast.testing.signing import Signer
from holdfast.testing.workload import (
    SMALL_BODIES,
    WRITE_MIX,
    Client,
    Report,
    Workload,
    body_fault,
    final_reads,
    gather,
    make_body,
)

WORKLOAD = Workload(("127.0.0.1", 1), Signer("", ""), "bucket", ("a", "b", "c"), WRITE_MIX, SMALL_BODIES)


class Store:
    """A store in a dict, spoken to like an S3Client, that can be told to lie."""

    def __init__(self, lie: str = "") -> None:
        self.objects: dict[str, bytes] = {}
        self.random = Random(3)
        self.lie = lie

    def close(self) -> None: ...

    def _lies(self, lie: str) -> bool:
        return self.lie == lie and self.random.random() < 0.05

    def put(self, bucket: str, key: str, body: bytes, headers: Mapping[str, str] | None = None) -> Answer:
        headers = headers or {}
        held = self.objects.get(key)
        if "if-none-match" in headers and held is not None:
            return Answer(412, {}, b"")
        if "if-match" in headers and (held is None or etag(held) != headers["if-match"].strip('"')):
            return Answer(412 if held is not None else 404, {}, b"")
        if self._lies("no answer, and half of it was done") and self.random.random() < 0.5:
            raise NoAnswer
        if not self._lies("acknowledged and lost"):
            self.objects[key] = body
        if self._lies("no answer, and half of it was done"):
            raise NoAnswer
        return Answer(200, {"etag": f'"{etag(body)}"'}, b"")

    def multipart(self, bucket: str, key: str, parts: list[bytes]) -> Answer:
        self.objects[key] = b"-" + parts[0]
        return Answer(200, {}, b"")

    def get(self, bucket: str, key: str) -> Answer:
        if self._lies("not there"):
            raise NotSent
        if self._lies("503"):
            return Answer(503, {}, b"")
        if key not in self.objects or self._lies("says that it is gone"):
            return Answer(404, {}, b"")
        body = self.objects[key]
        content = body.removeprefix(b"-")
        if self._lies("a byte is wrong"):
            content = content[:70] + b"?" + content[71:]
        return Answer(200, {"etag": f'"{etag(body)}"'}, content)

    def delete(self, bucket: str, key: str) -> Answer:
        if not self._lies("deleted and still there"):
            self.objects.pop(key, None)
        return Answer(204, {}, b"")

    def list_page(self, bucket: str) -> ListedPage:
        return ListedPage({key: etag(body) for key, body in self.objects.items() if not self._lies("not listed")}, None)

    def list_all(self, bucket: str) -> dict[str, str]:
        return dict(self.list_page(bucket).etags)


def etag(body: bytes) -> str:
    if body.startswith(b"-"):
        return md5(md5(body[1:]).digest()).hexdigest() + "-1"
    return md5(body).hexdigest()


def work(store: Store) -> Report:
    """Three clients, taking turns."""
    clients = [Client(WORKLOAD, number) for number in range(3)]
    turns = Random(5)
    for client in clients:
        client._s3 = store  # type: ignore[assignment]
    for _ in range(3000):
        client = turns.choice(clients)
        client.step(turns.choices(list(WRITE_MIX), list(WRITE_MIX.values()))[0], turns.choice(WORKLOAD.keys))
    total = Report([operation for client in clients for operation in client.report.history], 0)
    total.wrong = [wrong for client in clients for wrong in client.report.wrong]
    history, wrong = final_reads(store, "bucket", WORKLOAD.keys)  # type: ignore[arg-type]
    return Report(total.history + history, 0, total.wrong + wrong)


@pytest.mark.parametrize("lie", ["", "no answer, and half of it was done", "not there", "503"])
def test_an_honest_store_passes(lie: str) -> None:
    report = work(Store(lie))
    assert report.wrong == []
    assert check(report.history) is None
    unknown = [operation for operation in report.history if operation.outcome is Outcome.UNKNOWN]
    assert bool(unknown) == lie.startswith("no answer")
    assert any(operation.outcome is Outcome.REFUSED for operation in report.history)


@pytest.mark.parametrize(
    "lie", ["acknowledged and lost", "says that it is gone", "deleted and still there", "not listed"]
)
def test_a_lie_is_found_by_the_checker(lie: str) -> None:
    assert check(work(Store(lie)).history) is not None


def test_wrong_bytes_are_found_by_the_client() -> None:
    report = work(Store("a byte is wrong"))
    assert report.wrong
    assert "wrong from byte 70" in report.wrong[0]


def test_bodies_tell() -> None:
    body = make_body(3, 17, 5000)
    assert len(body) == 5000
    assert body_fault(body) is None
    assert body_fault(body[:-1]) is not None
    assert body_fault(body + b"x") is not None
    assert body_fault(b"") is not None
    assert body_fault(make_body(3, 17, 1)) is None
    assert make_body(3, 18, 5000) != body


def test_reports_of_clients_are_gathered(tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / f"report-{number}.json").write_text(
            '{"history": [], "requests": 2, "wrong": ["w"], "statuses": {"get: 200": 3}}'
        )
        save(tmp_path / f"history-{number}.jsonl", work(Store()).history[:10])
    total = gather(tmp_path, 2)
    assert (len(total.history), total.requests, total.wrong, total.statuses) == (20, 4, ["w", "w"], {"get: 200": 6})
