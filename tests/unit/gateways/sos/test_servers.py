"""The configuration, as the original's pages and the seed write it, and the order of servers."""

import pytest

from holdfast.gateways.sos.servers import Role, Server, Servers, table


def urls(servers: list[Server]) -> list[str]:
    return [server.url for server in servers]


def test_a_plain_list() -> None:
    text = "# Comments are fine\nhttp://one:1234\n\nhttp://two:1234/  10\n  https://three\nnonsense\n"
    assert Servers.parse(text).all == (Server("http://one:1234"), Server("http://two:1234"), Server("https://three"))


GROUPS = """
# This defines two groups.
[1]
-: http://node1:3000
-: http://node1-2:3000
-: http://node1-3:3000
[ two ]
-:http://node2:3000
- : http://node2-2:3000
"""


def test_groups() -> None:
    groups = Servers.parse(GROUPS).groups()
    assert {name: urls(members) for name, members in groups.items()} == {
        "1": ["http://node1:3000", "http://node1-2:3000", "http://node1-3:3000"],
        "two": ["http://node2:3000", "http://node2-2:3000"],
    }


def test_the_first_of_each_group_comes_before_the_second_of_any() -> None:
    text = "[1]\n-: http://a1\n-: http://a2\n[2]\n-: http://b1\n-: http://b2\n[3]\n-: http://c1\n-: http://c2\n-: http://c3\n"
    assert urls(Servers.parse(text).ordered()) == [
        "http://a1", "http://b1", "http://c1", "http://a2", "http://b2", "http://c2", "http://c3",
    ]  # fmt: skip


def test_the_second_file_goes_on_where_the_first_ended() -> None:
    assert urls(list(Servers.parse("http://a\n", "http://b\nhttp://a/\n").all)) == ["http://a", "http://b"]


def test_roles() -> None:
    servers = Servers.parse(
        "http://a\nread-only: http://b\npreferred: http://c\n[g]\nRead-Only: http://d\nother: http://e\n"
    )
    assert [server.role for server in servers.all] == [
        Role.PLAIN, Role.READ_ONLY, Role.PREFERRED, Role.READ_ONLY, Role.PLAIN,
    ]  # fmt: skip
    assert urls(servers.for_uploads()) == ["http://c", "http://a", "http://e"]
    assert len(servers.ordered()) == 5


def test_the_command_line() -> None:
    assert urls(list(Servers.listed("http://a:1, b:2,,http://c/").all)) == ["http://a:1", "http://b:2", "http://c"]


@pytest.mark.parametrize("text", ["", "# nothing\n", "[empty]\n"])
def test_nothing(text: str) -> None:
    servers = Servers.parse(text)
    assert (servers.all, servers.ordered(), servers.for_uploads()) == ((), [], [])


def test_the_table() -> None:
    shown = table(Servers.parse("http://a\n[second]\nread-only: http://b").all)
    assert shown == "\t     group - server\n\t   default - http://a\n\t    second - http://b (read-only)"
