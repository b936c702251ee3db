"""`python -m bench.load`: rows of the table against one server or several, interleaved.

    python -m bench.load --target 6 --target floor               six directories, and the bare ASGI stack beside them
    python -m bench.load --target 1 --rows put-4k,get-4k --repeat 3
    python -m bench.load --target a=6 --target b=6@/other/tree/.venv/bin/holdfast --repeat 7
    python -m bench.load --target empty=6+0 --target full=6+1000000 --rows list,put-4k,get-4k,delete --repeat 5
    python -m bench.load --target minio=http://127.0.0.1:9001,USER,PASSWORD,PID

DRIVES+KEYS is a server whose bucket keeps versions and holds that many further keys, half of them with an old version.

With several targets every repetition runs each row on all of them, in turning order, and the ratio of the first to
each other one is taken within the repetition: on a noisy machine only ratios of neighbours mean anything.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

from bench.figures import hash_rates, memory_bytes
from bench.rows import ROWS, Row, Target
from bench.run import Result, make_bucket, prepare, run
from holdfast.core.limits import MIB
from holdfast.testing.server import Server
from holdfast.testing.signing import Signer

FLOOR = (sys.executable, "-m", "bench.asgi_floor")


@dataclass(frozen=True, slots=True)
class Running:
    """A server that the rows run against."""

    name: str
    target: Target
    pid: int | None
    ballast: tuple[str, ...] = ()
    """Arguments of `bench.fill`; none for a bucket that stays as it is."""


def start(stack: ExitStack, spec: str, arguments: argparse.Namespace, scratch: Path) -> Running:
    """Start, or find, [NAME=](floor | DRIVES[+KEYS][@EXECUTABLE] | URL,ACCESS_KEY,SECRET_KEY[,PID])."""
    name, equals, meaning = spec.partition("=")
    if not equals:
        name = meaning = spec
    if meaning.startswith("http://"):
        url, access_key, secret_key, *pid = meaning.split(",")
        parts = urlsplit(url)
        assert parts.hostname is not None, f"no host in {url}"
        address = (parts.hostname, parts.port or 80)
        found = Target(address, Signer(access_key, secret_key), arguments.payload)
        return Running(name, found, int(pid[0]) if pid else None)
    home = Path(tempfile.mkdtemp(prefix=f"{name.replace('/', '-')}-", dir=scratch))
    stack.callback(shutil.rmtree, home, ignore_errors=True)
    meaning, _, executable = meaning.partition("@")
    count, plus, keys = meaning.partition("+")
    floor = meaning == "floor"
    directories = [] if floor else [home / f"drive-{number}" for number in range(int(count))]
    for directory in directories:
        directory.mkdir()
    command = FLOOR if floor else (executable,) if executable else ()
    options = () if floor else tuple(arguments.option)
    server = Server(directories, home / "log", workers=arguments.workers, executable=command, options=options)
    stack.enter_context(server)
    target = Target(server.address, server.signer, arguments.payload, verify=not floor)
    fill = ("--keys", keys, "--run-dir", str(server.run_directory), *map(str, directories))
    return Running(name, target, server.pid, fill if plus else ())


def make_ready(server: Running) -> None:
    """The bucket that the rows use, and what else is to be in it."""
    make_bucket(server.target)
    if server.ballast:
        subprocess.run([sys.executable, "-m", "bench.fill", *server.ballast], check=True)
    if server.pid is not None:
        print(f"{server.name}: {memory_bytes(server.pid) / MIB:.0f} MiB before the rows")


def header() -> str:
    return (
        f"{'row':<11} {'target':<10} {'rate':>9} {'unit':<9} {'p50 ms':>8} {'p99 ms':>8} {'requests':>8} "
        f"{'cpu ms':>7} {'client':>7} {'cores':>5} {'MiB':>6} {'checked':>7} {'failed':>6}"
    )


def line(name: str, result: Result) -> str:
    text = (
        f"{result.row:<11} {name:<10} {result.rate:9.1f} {result.unit:<9} {result.p50_ms:8.2f} {result.p99_ms:8.2f} "
        f"{result.requests:8} {result.server_cpu_ms:7.3f} {result.client_cpu_ms:7.3f} {result.server_busy:5.2f} "
        f"{result.memory_mib:6.0f} {result.verified:7} {result.failures:6}"
    )
    return text + "".join(f"\n    {error}" for error in result.errors)


def measure(servers: Sequence[Running], row: Row, arguments: argparse.Namespace) -> dict[str, list[Result]]:
    """Every repetition of a row on every server."""
    results: dict[str, list[Result]] = {server.name: [] for server in servers}
    for turn in range(arguments.repeat):
        shift = turn % len(servers)
        for server in [*servers[shift:], *servers[:shift]]:
            # Keys of their own for each repetition, or a put would become an overwrite.
            target = replace(server.target, run=f"{row.name}.{turn}")
            if row.prepare is not None:
                prepare(target, row.prepare)
            result = run(
                target,
                row,
                pid=server.pid,
                processes=arguments.processes,
                warm=arguments.warm,
                length=arguments.seconds,
            )
            results[server.name].append(result)
            print(line(server.name, result), flush=True)
    return results


def ratios(servers: Sequence[Running], results: dict[str, list[Result]]) -> list[str]:
    """The first server's rate over each other one's, within each repetition."""
    lines = []
    first, *others = servers
    for other in others:
        pairs = zip(results[first.name], results[other.name], strict=True)
        values = sorted(ours.rate / theirs.rate for ours, theirs in pairs if theirs.rate)
        if values:
            lines.append(
                f"    {first.name}/{other.name}: {median(values):.3f} (from {values[0]:.3f} to {values[-1]:.3f})"
            )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--target", action="append", required=True, help="[NAME=](floor | DRIVES[+KEYS][@EXECUTABLE] | URL,...)"
    )
    parser.add_argument("--rows", default=",".join(name for name in ROWS if name != "put-64m-32"))
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--warm", type=float, default=1.0)
    parser.add_argument("--processes", type=int, default=2, help="of the load")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="of the servers started here")
    parser.add_argument("--payload", choices=["signed", "unsigned", "chunked"], default="signed")
    parser.add_argument(
        "--option", action="append", default=[], help="passed on to `holdfast serve`, as --option=--x=y"
    )
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()), help="where the drives are made")
    parser.add_argument("--json", type=Path, help="write every figure there, too")
    arguments = parser.parse_args()
    rates = hash_rates()
    print(rates)
    everything: dict[str, dict[str, list[Result]]] = {}
    with ExitStack() as stack:
        servers = [start(stack, spec, arguments, arguments.scratch) for spec in arguments.target]
        for server in servers:
            make_ready(server)
        print(header())
        for name in arguments.rows.split(","):
            everything[name] = measure(servers, ROWS[name], arguments)
            print("\n".join(ratios(servers, everything[name])) or "", end="\n" if len(servers) > 1 else "")
    if arguments.json is not None:
        rows = {
            name: {who: [asdict(r) for r in found] for who, found in row.items()} for name, row in everything.items()
        }
        arguments.json.write_text(json.dumps({"hash_rates": asdict(rates), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
