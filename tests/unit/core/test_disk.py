"""What wraps a disk hands on every call that it does not change: none is forgotten."""

import inspect
from typing import Any

import pytest

from holdfast.core.disk import Disk, DiskOver, File, FileOver


class Called:
    """Notes what it was called with, and answers with that."""

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            return name, arguments, named

        return call


def methods(protocol: type) -> list[str]:
    return [name for name, _ in inspect.getmembers(protocol, inspect.isfunction) if not name.startswith("_")]


@pytest.mark.parametrize(
    ("over", "name"),
    [*((FileOver, name) for name in methods(File)), *((DiskOver, name) for name in methods(Disk))],
)
def test_every_call_is_handed_on(over: Any, name: str) -> None:
    called = Called()
    parameters = inspect.signature(getattr(over, name)).parameters.values()
    plain = [object() for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD and p.name != "self"]
    named = {p.name: object() for p in parameters if p.kind is p.KEYWORD_ONLY}
    seen: list[Any] = []
    setattr(called, name, lambda *a, **n: seen.append((list(a), n)) or "answer")
    answer = getattr(over(called), name)(*plain, **named)
    assert seen == [(plain, named)]
    returns = inspect.signature(getattr(over, name)).return_annotation
    assert answer == (None if returns is None else "answer")
