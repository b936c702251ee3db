"""The recorder against the kernel: what a program did, replayed whole, is what is there; cut short, what it synced.

The oracle is the file system itself: a program under the recorder does everything that a store does to files, LMDB
included, and its directory is compared with the one made from the trace.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import lmdb
import pytest

from holdfast.testing.power_cut import Cut, Kind, Names, Unsynced, World, cut_positions, marks, read_trace
from tests.simulation.recorded import build_recorder, recording_environment

EVERYTHING = """
import os, sys, threading
root, = sys.argv[1:]
os.chdir(root)
os.makedirs("a/b")
directory = os.open("a", os.O_RDONLY)
one = os.open("a/one", os.O_CREAT | os.O_RDWR, 0o600)
os.write(one, b"first ")
os.write(one, b"second ")
os.pwrite(one, b"at 100", 100)
os.pwritev(one, [b"va", b"", b"vb"], 200)
os.writev(os.dup(one), [b"x", b"y"])
os.ftruncate(one, 5000)
os.posix_fallocate(one, 0, 9000)
os.fdatasync(one)
os.fsync(directory)
appended = os.open("a/appended", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
os.write(appended, b"1")
os.write(appended, b"2")
os.open("a/one", os.O_RDWR | os.O_CREAT)
two = os.open("two", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600, dir_fd=directory)
os.write(two, b"two")
os.rename("a/two", "a/b/renamed")
os.replace("a/appended", "a/b/renamed")
os.link("a/one", "a/linked")
os.unlink("a/one")
os.write(one, b"after unlink")
durable = os.open("durable", os.O_CREAT | os.O_WRONLY | os.O_DSYNC, 0o600)
os.pwrite(durable, b"d" * 5000, 4000)
os.mkdir("gone"); os.rmdir("gone")
open("cut", "w").write("long content")
open("cut", "w").write("short")
for number in range(4):
    threading.Thread(target=lambda n=number: open(f"a/thread-{n}", "wb").write(bytes([n]) * 70000)).start()
if os.fork() == 0:
    open("child", "w").write("child")
    os._exit(0)
os.wait()
"""

LMDB = """
import lmdb, os, sys
root, trace, sync = sys.argv[1:]
trace = os.open(trace, os.O_WRONLY | os.O_APPEND)
import struct
environment = lmdb.open(root + "/index", map_size=1 << 24, sync=sync == "sync")
for number in range(60):
    with environment.begin(write=True) as transaction:
        for key in range(number % 7 + 1):
            transaction.put(b"%d-%d" % (number, key), os.urandom(700))
    text = b"%d" % number
    os.write(trace, struct.pack("<IIIIBBHHHQQ", 0x63726668, 40 + len(text), 0, 0, 13, 0, 0, 0, 0, 0, 0) + text)
environment.close()
"""


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_recorder(tmp_path_factory.mktemp("recorder"))


def record(recorder: Path, root: Path, trace: Path, program: str, *arguments: str) -> None:
    environment = {**os.environ, **recording_environment(recorder, trace, [root])}
    trace.touch()
    subprocess.run([sys.executable, "-c", program, str(root), *arguments], env=environment, check=True)


def contents(root: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(root)): path.read_bytes() if path.is_file() else None for path in root.rglob("*")}


def test_the_whole_trace_makes_the_same_directory(recorder: Path, tmp_path: Path) -> None:
    root, trace = tmp_path / "root", tmp_path / "trace"
    root.mkdir()
    world = World([root])
    record(recorder, root, trace, EVERYTHING)
    records = read_trace(trace)
    world.advance(records, len(records))
    world.materialise(Cut(len(records), Names.ORDERED, Unsynced.KEPT), [tmp_path / "replayed"])
    assert contents(tmp_path / "replayed") == contents(root)
    assert {record.kind for record in records} >= set(Kind) - {Kind.UNFOLLOWED, Kind.MARK}


def test_what_was_synced_is_there_after_any_cut(recorder: Path, tmp_path: Path) -> None:
    root, trace = tmp_path / "root", tmp_path / "trace"
    root.mkdir()
    world = World([root])
    record(recorder, root, trace, EVERYTHING)
    records = read_trace(trace)
    synced = next(index for index, record in enumerate(records) if record.kind is Kind.SYNC_END)
    world.advance(records, synced + 1)
    world.materialise(Cut(synced + 1, Names.ORDERED, Unsynced.LOST), [tmp_path / "cut"])
    left = contents(tmp_path / "cut")["a/one"]
    assert left is not None
    assert len(left) == 9000
    assert left.startswith(b"first second xy")
    assert left[100:106] == b"at 100"
    assert left[200:204] == b"vavb"


def lmdb_losses(recorder: Path, tmp_path: Path, sync: str, styles: Sequence[Unsynced]) -> list[str]:
    """What LMDB lost of its commits, over all sync boundaries."""
    root, trace = tmp_path / "root", tmp_path / "trace"
    root.mkdir()
    world = World([root])
    record(recorder, root, trace, LMDB, str(trace), sync)
    records = read_trace(trace)
    losses = []
    for seed, position in enumerate(cut_positions(records)):
        world.advance(records, position)
        committed = {int(mark) for mark in marks(records, position)}
        if not committed:
            continue  # until the first commit, LMDB's own files need not have names
        for unsynced in styles:
            target = tmp_path / f"cut-{seed}-{unsynced}"
            world.materialise(Cut(position, Names.ORDERED, unsynced, seed), [target])
            try:
                loss = lmdb_loss(target / "index", committed)
            except lmdb.Error as error:
                loss = repr(error)
            if loss:
                losses.append(f"{seed} {unsynced}: {loss}")
    return losses


def lmdb_loss(index: Path, committed: set[int]) -> str:
    with lmdb.open(str(index), map_size=1 << 24) as found, found.begin() as transaction:
        numbers = {int(key.partition(b"-")[0]) for key, _ in transaction.cursor()}
        for number in numbers:
            if not all(transaction.get(b"%d-%d" % (number, key)) for key in range(number % 7 + 1)):
                return f"{number} is there in part"
    if not committed <= numbers <= set(range(max(committed) + 2)):
        return f"committed {max(committed)}, found {max(numbers, default=None)}"
    return ""


def test_lmdb_keeps_what_it_committed(recorder: Path, tmp_path: Path) -> None:
    """Its own promise, through its own calls: this is what the view and the drives' indexes stand on."""
    assert lmdb_losses(recorder, tmp_path, "sync", [Unsynced.LOST, Unsynced.TORN]) == []


def test_lmdb_without_sync_is_caught(recorder: Path, tmp_path: Path) -> None:
    """The proof can fail: the same program with the syncs left out loses what it committed.

    Nothing is torn here: LMDB has no checksums, and reading torn pages of its can do anything.
    """
    assert lmdb_losses(recorder, tmp_path, "relaxed", [Unsynced.LOST])
