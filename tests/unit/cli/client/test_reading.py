"""Which bytes `cat` writes, and how names are shown."""

import pytest

from holdfast.cli.client.reading import Span
from holdfast.cli.client.reporting import shown
from holdfast.core.errors import InvalidRequest


@pytest.mark.parametrize(
    ("span", "size", "within"),
    [
        (Span(), 10, (0, 10)),
        (Span.of("0-4"), 10, (0, 5)),
        (Span.of("4-"), 10, (4, 10)),
        (Span.of("0-99"), 10, (0, 10)),
        (Span.of("20-30"), 10, (10, 10)),
        (Span(tail=3), 10, (7, 10)),
        (Span(tail=30), 10, (0, 10)),
        (Span(tail=0), 10, (10, 10)),
        (Span(), 0, (0, 0)),
    ],
)
def test_spans(span: Span, size: int, within: tuple[int, int]) -> None:
    assert span.within(size) == within


@pytest.mark.parametrize("text", ["5", "-5", "5-4", "a-b", "", "1-2-3"])
def test_no_span(text: str) -> None:
    with pytest.raises(InvalidRequest, match="FIRST-LAST"):
        Span.of(text)


def test_names_do_not_steer_a_terminal() -> None:
    assert shown("a b/ünï/日本") == "a b/ünï/日本"
    assert shown("a\x1b[2Jb\nc\x9b") == r"a\x1b[2Jb\nc\x9b"
    assert shown("\udcff") == r"\udcff"
