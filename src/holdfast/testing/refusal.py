"""What a call must raise, in the words of the tests: `await refusal(NotFound, drive.get(key))`."""

from collections.abc import Awaitable
from typing import TypeVar

from holdfast.core.errors import HoldfastError

E = TypeVar("E", bound=HoldfastError)


async def refusal(kind: type[E], call: Awaitable[object]) -> E:
    """The error of type `kind` that `call` must raise."""
    try:
        await call
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was not raised")
