"""What `-store` means, and what `sos quickstart` writes."""

import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from holdfast.cli.sos import replicate
from holdfast.cli.sos.blob_server import directories, run, scheme, without_password
from holdfast.cli.sos.environment import read_secret
from holdfast.cli.sos.quickstart import SHIMS, make
from holdfast.core.errors import AlreadyExists, InvalidRequest
from holdfast.drives.identity import IDENTITY_NAME
from holdfast.gateways.sos.replicate import Options, Report


def drive(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / IDENTITY_NAME).touch()
    return path


def test_a_directory_is_a_drive(tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert directories(str(data)) == [data]
    data.mkdir()
    assert directories(str(data)) == [data]
    (data / "one").mkdir()
    assert directories(str(data)) == [data], "one empty directory is none yet"
    (data / "some file").touch()
    (data / "two").mkdir()
    assert directories(str(data)) == [data], "these are somebody's files"


def test_a_drive_is_not_looked_into(tmp_path: Path) -> None:
    data = drive(tmp_path / "data")
    for name in ("meta", "segments"):
        (data / name).mkdir()
    assert directories(str(data)) == [data]


def test_a_directory_of_drives(tmp_path: Path) -> None:
    drives = [drive(tmp_path / name) for name in ("b", "a")]
    assert directories(str(tmp_path)) == sorted(drives)
    (tmp_path / "c").mkdir()
    assert directories(str(tmp_path)) == [*sorted(drives), tmp_path / "c"], "an empty one is a missing drive"
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").touch()
    assert len(directories(str(tmp_path))) == 3


def test_several_empty_directories(tmp_path: Path) -> None:
    made = [tmp_path / name for name in ("1", "2", "3")]
    for path in made:
        path.mkdir()
    (tmp_path / "lost+found").mkdir()
    assert directories(str(tmp_path)) == made


def test_commas() -> None:
    assert directories("a,b,") == [Path("a"), Path("b")]
    with pytest.raises(InvalidRequest):
        directories(",")


def test_urls() -> None:
    assert [scheme(store) for store in ("data", "redis://h/0", "a,b")] == ["", "redis", ""]
    assert without_password("postgresql://user:secret@host/db") == "postgresql://host/db"
    assert without_password("redis://host/0?password=secret") == "redis://host/0"
    assert without_password("data") == "data"
    with pytest.raises(InvalidRequest, match="port") as refused:
        run("127.0.0.1", 1, "redis://:secret/1@host/0", 1, None, print)
    assert "secret" not in str(refused.value)
    with pytest.raises(InvalidRequest, match="gopher"):
        run("127.0.0.1", 1, "gopher://x", 1, None, print)


@pytest.mark.parametrize(("seconds", "is_well"), [(None, False), (5.0, True)])
def test_a_replication_that_was_stopped(monkeypatch: pytest.MonkeyPatch, seconds: float | None, is_well: bool) -> None:
    """Of a daemon that is its end; one run did not see everything."""

    async def stopped(*_: object) -> Report:
        raise asyncio.CancelledError

    monkeypatch.setattr(replicate, "_run", stopped)
    assert replicate.run(Options(), seconds, print) is is_well


def test_a_daemon_rests_between_runs() -> None:
    for seconds in (0, -1, float("nan")):
        with pytest.raises(InvalidRequest, match="-daemon"):
            replicate.run(Options(), seconds, print)


def test_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", "from outside")
    assert read_secret(None, "A_SECRET") == "from outside"
    assert read_secret(None, "NO_SECRET") == ""
    file = tmp_path / "secret"
    for text in (None, "", " \n"):
        if text is not None:
            file.write_text(text)
        with pytest.raises(InvalidRequest):
            read_secret(str(file), "A_SECRET")
    file.write_text("inside\n")
    assert read_secret(str(file), "A_SECRET") == "inside"


def test_quickstart(tmp_path: Path) -> None:
    for _ in range(2):
        assert len(list(make(str(tmp_path)))) == 4
    for name in SHIMS:
        assert os.access(tmp_path / name, os.X_OK)
        done = subprocess.run([tmp_path / name, "-help"], capture_output=True, text=True, check=True)
        assert "Usage:" in done.stdout
    subprocess.run(["make"], cwd=tmp_path / "golang", check=True, capture_output=True)


def test_quickstart_overwrites_nothing_of_others(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/replicate").write_text("mine")
    with pytest.raises(AlreadyExists):
        list(make(str(tmp_path)))
    assert not (tmp_path / "golang").exists()
