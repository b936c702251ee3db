"""Sizes with units, tables for grep, documents for programs."""

import json

import pytest

from holdfast.cli.output import Output, count, listed, size


@pytest.mark.parametrize(
    ("bytes_count", "said"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (1023 * 1024, "1023 KiB"),
        (1024**4, "1 TiB"),
        (1024**7, "1024 EiB"),
    ],
)
def test_size(bytes_count: int, said: str) -> None:
    assert size(bytes_count) == said


def test_words() -> None:
    assert (count(1, "block"), count(2000, "block")) == ("1 block", "2,000 blocks")
    assert (listed([]), listed(["a"]), listed(["a", "b", "c"])) == ("", "a", "a, b and c")


def test_a_table_that_is_not_on_a_terminal_is_plain(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(as_json=False)
    output.table(["DRIVE", "STATE"], [["0123", "in use"], ["4", "missing"]])
    output.document({"not": "wanted"})
    with output.progress("nothing to see", 3) as progress:
        progress.at(1)
    assert capsys.readouterr().out == "DRIVE  STATE\n0123   in use\n4      missing\n"


def test_a_document_has_standard_output_to_itself(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(as_json=True)
    output.say("on the way")
    output.document({"healthy": True})
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"healthy": True}
    assert captured.err == "on the way\n"
