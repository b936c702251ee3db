"""The original's Quick Start, word for word, with its ports: run by `test_sos_quickstart.py` in a network of its own.

    python -m tests.integration.sos_quickstart DIRECTORY

Whatever does not go as the original's page says is an AssertionError.
"""

import fcntl
import json
import socket
import struct
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from tests.integration.sos_processes import SOS, Terminal, environment, request, sha1

BUILD = """\
cd ./golang
make
"""

BLOB_SERVERS = ("./golang/blob_server -store data1 -port 4001", "./golang/blob_server -store data2 -port 4002")

CONFIGURATION = """\
cat >> ~/.sos.conf<<EOF
http://localhost:4001
http://localhost:4002
EOF
"""

API_SERVER = "./golang/api_server"

UPLOAD = "curl -X POST --data-binary @/etc/passwd  http://localhost:9991/upload"
FETCH = "curl http://localhost:9992/fetch/{id}"
REPLICATE = ("./bin/replicate --verbose", "./bin/replicate --verbose --min-copies=3", "./bin/replicate -v")

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1


def bring_up_loopback() -> None:
    """A new network has one that is down."""
    with socket.socket() as any_socket:
        name = b"lo".ljust(16, b"\0")
        _, flags = struct.unpack_from("16sH", fcntl.ioctl(any_socket, _SIOCGIFFLAGS, name + bytes(24)))
        if not flags & _IFF_UP:
            fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH22x", name, flags | _IFF_UP))


def main(directory: Path) -> None:
    home = directory / "home"
    home.mkdir()
    variables = environment(home)

    def shell(commands: str) -> str:
        done = subprocess.run(
            ["/bin/sh", "-ec", commands], cwd=directory, env=variables, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{commands}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def terminal(number: int, command: str, *ports: int) -> Terminal:
        return Terminal(["/bin/sh", "-c", command], directory, directory / f"terminal{number}", variables, ports)

    shell(f"{SOS} quickstart .")
    shell(BUILD)
    with ExitStack() as stack:
        for number, command in enumerate(BLOB_SERVERS):
            stack.enter_context(terminal(number, command, 4001 + number))
        shell(CONFIGURATION)
        api = stack.enter_context(terminal(2, API_SERVER, 9991, 9992))
        assert api.said().startswith("Launching API-server\n"), api.said()

        data = Path("/etc/passwd").read_bytes()
        answer = shell(UPLOAD)
        assert answer == f'{{"id":"{sha1(data)}","size":{len(data)},"status":"OK"}}', answer
        assert shell(FETCH.format(id=sha1(data))).encode() == data

        assert sorted(lists()) == [[], [sha1(data)]], "it is on one of them until it is replicated"
        for command in REPLICATE:
            print(f"$ {command}\n{shell(command)}")
            assert lists() == [[sha1(data)]] * 2
    print("the Quick Start ran word for word")


def lists() -> list[list[str]]:
    """What each blob server lists, by the route of the original's first version."""
    return [json.loads(request("GET", f"http://localhost:{port}/blob")) for port in (4001, 4002)]


if __name__ == "__main__":
    bring_up_loopback()
    began = time.monotonic()
    main(Path(sys.argv[1]))
    print(f"in {time.monotonic() - began:.1f} s")
