"""What arguments name."""

from pathlib import Path

import pytest

from holdfast.cli.client.address import Local, Remote, Stream, parse_place, parse_remote
from holdfast.core.errors import InvalidName


@pytest.mark.parametrize(
    ("text", "remote"),
    [
        ("s3://photos", Remote("photos")),
        ("s3://photos/", Remote("photos")),
        ("photos/2026/a b.jpg", Remote("photos", "2026/a b.jpg")),
        ("s3://photos//etc/passwd", Remote("photos", "/etc/passwd")),
        ("s3://photos/../x", Remote("photos", "../x")),
        ("s3://photos/a/", Remote("photos", "a/")),
    ],
)
def test_what_can_only_be_remote(text: str, remote: Remote) -> None:
    assert parse_remote(text) == remote


@pytest.mark.parametrize("text", ["", "s3://", "s3:///key", "./photos", "../photos", "/photos", "-", "a b/c"])
def test_no_bucket(text: str) -> None:
    with pytest.raises(InvalidName, match="s3://BUCKET/KEY"):
        parse_remote(text)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("-", Stream()),
        ("photos/2026", Local(Path("photos/2026"))),
        ("photos/", Local(Path("photos"), is_folder=True)),
        (".", Local(Path(), is_folder=True)),
        ("../..", Local(Path("../.."), is_folder=True)),
        ("s3://photos/a", Remote("photos", "a")),
    ],
)
def test_either_kind_of_place(text: str, place: object) -> None:
    assert parse_place(text) == place


def test_a_folder_is_not_what_begins_like_it() -> None:
    assert Remote("logs", "app").prefix == "app/"
    assert Remote("logs", "app/").prefix == "app/"
    assert Remote("logs").prefix == ""
    assert Remote("logs", "app").at("x/y") == Remote("logs", "app/x/y")
    assert str(Remote("logs", "a/b")) == "s3://logs/a/b"
    assert Remote("logs", "a/b/").name == "b"
