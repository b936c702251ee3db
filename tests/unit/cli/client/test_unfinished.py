"""Notes of unfinished uploads."""

from pathlib import Path

from holdfast.cli.client.unfinished import Begun, default_directory, known, note_of

BEGUN = Begun("upload", 100, 5, 7, 10, {"ContentType": "text/plain"})


def test_what_was_written_is_read_by_the_next(tmp_path: Path) -> None:
    with note_of(tmp_path / "notes", "endpoint", "bucket") as note:
        assert note.read() is None
        note.write(BEGUN)
    with note_of(tmp_path / "notes", "endpoint", "bucket") as note:
        assert note.read() == BEGUN
        note.forget()
    with note_of(tmp_path / "notes", "endpoint", "bucket") as note:
        assert note.read() is None


def test_two_at_once_do_not_share_it(tmp_path: Path) -> None:
    with note_of(tmp_path, "same") as first, note_of(tmp_path, "same") as second, note_of(tmp_path, "other") as third:
        first.write(BEGUN)
        second.write(Begun("other", 1, 1, 1, 1, {}))
        assert second.read() is None
        assert first.read() == BEGUN
        assert third.read() is None


def test_a_note_that_was_cut_off_is_none(tmp_path: Path) -> None:
    with note_of(tmp_path, "one") as note:
        note.write(BEGUN)
    [path] = tmp_path.iterdir()
    whole = path.read_bytes()
    for damaged in (b"", whole[:-5], b"[]", b"{}", whole.replace(b'"format": 1', b'"format": 2')):
        path.write_bytes(damaged)
        with note_of(tmp_path, "one") as note:
            assert note.read() is None


def test_without_a_directory_nothing_is_remembered(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with note_of(tmp_path / "file" / "notes", "one") as note:
        note.write(BEGUN)
        assert note.read() is None
        note.forget()


def test_only_the_same_is_gone_on_with() -> None:
    assert BEGUN.is_of(Begun("", 100, 5, 7, 10, {"ContentType": "text/plain"}))
    assert not BEGUN.is_of(Begun("", 100, 6, 7, 10, {"ContentType": "text/plain"}))
    assert not BEGUN.is_of(Begun("", 100, 5, 7, 10, {}))


def test_notes_are_for_their_owner(tmp_path: Path) -> None:
    with note_of(tmp_path / "notes", "one") as note:
        note.write(BEGUN)
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "notes").iterdir()] == [0o600]
    assert default_directory({"XDG_STATE_HOME": "/state"}) == Path("/state/holdfast/uploads")
    assert default_directory({"XDG_STATE_HOME": "relative"}).name == "uploads"


def test_notes_are_known_by_their_upload(tmp_path: Path) -> None:
    assert known(tmp_path / "absent") == {}
    with note_of(tmp_path, "one") as note:
        note.write(BEGUN)
    (tmp_path / "damaged.json").write_bytes(b"{")
    with note_of(tmp_path, "two") as note:
        note.write(Begun("other", 1, 1, 1, 1, {}, "/srv/film"))
        found = known(tmp_path)
    assert {name: (one.begun.source, one.is_locked) for name, one in found.items()} == {
        "upload": ("", False),
        "other": ("/srv/film", True),
    }
    assert not known(tmp_path)["other"].is_locked
    found["upload"].path.unlink()
    assert known(tmp_path).keys() == {"other"}
