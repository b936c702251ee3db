"""What wraps a disk hands on every call that it does not change: none is forgotten."""

import inspect
from typing import Any

import pytest

from holdfast.core.disk import Disk, DiskOver, File, FileOver


class Noted:
    """Anything that can be called, and what was."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[Any], dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        def call(*plain: Any, **named: Any) -> str:
            self.calls.append((name, list(plain), named))
            return "answer"

        return call


def methods(protocol: type) -> list[str]:
    return [name for name, _ in inspect.getmembers(protocol, inspect.isfunction) if not name.startswith("_")]


@pytest.mark.parametrize(
    ("over", "name"),
    [*((FileOver, name) for name in methods(File)), *((DiskOver, name) for name in methods(Disk))],
)
def test_every_call_is_handed_on(over: Any, name: str) -> None:
    noted = Noted()
    signature = inspect.signature(getattr(over, name))
    plain = [object() for p in signature.parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD][1:]
    named = {p.name: object() for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY}
    answer = getattr(over(noted), name)(*plain, **named)
    assert noted.calls == [(name, plain, named)]
    assert answer == (None if signature.return_annotation is None else "answer")
