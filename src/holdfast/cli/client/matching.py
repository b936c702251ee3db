"""Which names are meant: --include and --exclude.

Patterns are the shell's (`*`, `?`, `[abc]`) and are held against the whole name below the source, in which `*` crosses
slashes, as in aws-cli. With --include only what matches one of them is taken; --exclude takes away, and wins.
"""

import re
from dataclasses import dataclass
from fnmatch import translate


@dataclass(frozen=True, slots=True)
class Filter:
    include: tuple[re.Pattern[str], ...] = ()
    exclude: tuple[re.Pattern[str], ...] = ()

    @classmethod
    def of(cls, include: tuple[str, ...], exclude: tuple[str, ...]) -> "Filter":
        return cls(tuple(map(_compiled, include)), tuple(map(_compiled, exclude)))

    def takes(self, relative: str) -> bool:
        if self.include and not any(pattern.match(relative) for pattern in self.include):
            return False
        return not any(pattern.match(relative) for pattern in self.exclude)


def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(translate(pattern))
