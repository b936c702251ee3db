"""Which blob servers there are: the configuration files, and the order in which servers are asked.

    # A comment.                       [group]
    http://one.example:3001            -: http://one.example:3001
    preferred: http://two:3001         -: http://two.example:3001
    read-only: http://three:3001       [other group]
                                       read-only: http://three.example:3001

A line is a URL, with a role before it if it has one; `-:` is none. What follows the URL (a weight, in old files) is
ignored. Lines before the first group are the group "default". A URL that is there twice counts once, for otherwise its
objects would seem to be there twice.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

DEFAULT_GROUP = "default"

_LINE = re.compile(r"(?:(?P<role>[A-Za-z-]+)\s*[:=]\s*)?(?P<url>https?://\S+)")
_GROUP = re.compile(r"\[(?P<name>[^\]]+)\]")


class Role(StrEnum):
    """What a server is used for."""

    PLAIN = ""
    PREFERRED = "preferred"
    """New objects are put there first."""
    READ_ONLY = "read-only"
    """Nothing is put there."""


@dataclass(frozen=True, slots=True)
class Server:
    url: str
    """Without a slash at its end."""
    group: str = DEFAULT_GROUP
    role: Role = Role.PLAIN

    @property
    def writable(self) -> bool:
        return self.role is not Role.READ_ONLY


@dataclass(frozen=True, slots=True)
class Servers:
    """All of them, in the order of the configuration."""

    all: tuple[Server, ...] = ()

    @classmethod
    def parse(cls, *texts: str) -> "Servers":
        """The servers of configuration files, one after the other."""
        return cls(_distinct(server for text in texts for server in _parse(text)))

    @classmethod
    def listed(cls, text: str) -> "Servers":
        """Those of a command line: `a,b`. All are of the group "default"."""
        urls = [part.strip() for part in text.split(",") if part.strip()]
        return cls(_distinct(Server(_clean(url if "://" in url else f"http://{url}")) for url in urls))

    def groups(self) -> dict[str, list[Server]]:
        """By group, groups in the order in which they were first named."""
        groups: dict[str, list[Server]] = {}
        for server in self.all:
            groups.setdefault(server.group, []).append(server)
        return groups

    def ordered(self) -> list[Server]:
        """First the first member of each group, then the second of each, and so on."""
        groups = list(self.groups().values())
        longest = max(map(len, groups), default=0)
        return [group[place] for place in range(longest) for group in groups if place < len(group)]

    def for_uploads(self) -> list[Server]:
        """Those that may be written to, preferred ones first, else in order."""
        return sorted(
            filter(lambda server: server.writable, self.ordered()), key=lambda server: server.role is Role.PLAIN
        )


def table(servers: Sequence[Server]) -> str:
    """The servers as both commands show them."""
    lines = ["\t     group - server"]
    for server in servers:
        role = f" ({server.role})" if server.role else ""
        lines.append(f"\t{server.group:>10} - {server.url}{role}")
    return "\n".join(lines)


def _parse(text: str) -> Iterable[Server]:
    group = DEFAULT_GROUP
    for line in map(str.strip, text.splitlines()):
        if found := _GROUP.match(line):
            group = found["name"].strip()
        elif found := _LINE.match(line):
            name = (found["role"] or "").lower()
            yield Server(_clean(found["url"]), group, Role(name) if name in set(Role) else Role.PLAIN)


def _clean(url: str) -> str:
    return url.rstrip("/")


def _distinct(servers: Iterable[Server]) -> tuple[Server, ...]:
    """The first of each URL."""
    by_url: dict[str, Server] = {}
    for server in servers:
        by_url.setdefault(server.url, server)
    return tuple(by_url.values())
