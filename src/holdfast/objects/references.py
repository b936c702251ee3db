"""Content rows: who refers to them, and what becomes of a content that nobody refers to.

Everything here prepares rows for somebody else's commit, together with the tokens that it relied on: a reference is
taken or dropped in the same commit as the version, part or composite row that is its reason.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from holdfast.core.clock import Clock
from holdfast.core.errors import Unavailable
from holdfast.core.ids import ContentId
from holdfast.meta.interface import Change, Expectation, HasToken, Meta, Put, Row
from holdfast.objects.errors import NoSuchObject
from holdfast.objects.rows import ContentRow, condemned_row_key, content_row_key


@dataclass(slots=True)
class Prepared:
    """Part of a commit."""

    changes: list[Change] = field(default_factory=list)
    expecting: list[Expectation] = field(default_factory=list)
    taken: list[ContentId] = field(default_factory=list)
    """Contents that gain a reference. Counted by whoever commits, together with what the commit drops: one commit
    holds one change of a row."""


class Overtaken(Unavailable):
    """Another writer was faster: read again."""

    code = "overtaken"


class ContentGone(NoSuchObject):
    """A content to refer to is gone or condemned: whatever named it was deleted meanwhile."""

    code = "content_gone"


class References:
    """Reference counts of contents, and their end."""

    def __init__(self, meta: Meta, clock: Clock) -> None:
        self._meta = meta
        self._clock = clock

    async def read(self, content: ContentId) -> tuple[Row, ContentRow]:
        """Raises NotFound."""
        row = await self._meta.get(content_row_key(content))
        return row, ContentRow.decode(row.value)

    async def move(self, taken: Iterable[ContentId] = (), dropped: Iterable[ContentId] = ()) -> Prepared:
        """Take one reference for each of `taken`, drop one for each of `dropped`; contents may occur several times.

        The last reference condemns. Raises ContentGone when a content to take is gone or condemned. Raises Overtaken
        when a content has fewer references than are to be dropped: the rows that named it were read before somebody
        else dropped theirs.
        """
        balance = Counter(taken)
        gains = set(balance)
        balance.subtract(dropped)
        wanted = [content for content, change in balance.items() if change]
        prepared = Prepared()
        if not wanted:
            return prepared
        rows = await self._meta.get_many([content_row_key(content) for content in wanted])
        for content, found in zip(wanted, rows, strict=True):
            self._count(prepared, content, found, balance[content], taking=content in gains)
        return prepared

    def _count(self, prepared: Prepared, content: ContentId, found: Row | None, change: int, *, taking: bool) -> None:
        row = ContentRow.decode(found.value) if found is not None else None
        if taking and (row is None or row.condemned_ns):
            raise ContentGone("the content was deleted meanwhile")
        if found is None or row is None or row.refs + change < 0:
            raise Overtaken(f"content {content.hex()} has fewer references than were to be dropped")
        refs = row.refs + change
        condemned_ns = 0 if refs else self._clock.now_ns()
        changed = msgspec.structs.replace(row, refs=refs, condemned_ns=condemned_ns)
        prepared.expecting.append(HasToken(found.key, found.token))
        prepared.changes.append(Put(found.key, changed.encode()))
        if condemned_ns:
            prepared.changes.append(Put(condemned_row_key(condemned_ns, content), b""))
