"""Which servers list which ids, in the order of ids and in little memory: lists are sorted in runs on disk and merged.

Millions of ids on several servers would fill gigabytes as Python sets. A run is a file without a name, a line for each
id.
"""

import asyncio
import heapq
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import IO

# 100 bytes or so each as Python strings.
RUN_IDS = 200_000


class IdLists:
    """The lists of some servers. Close it."""

    def __init__(self, directory: Path, run_ids: int = RUN_IDS) -> None:
        self._directory = directory
        self._run_ids = run_ids
        self._files = ExitStack()
        self._runs: dict[str, list[IO[str]]] = {}
        self.counts: dict[str, int] = {}

    async def take(self, server: str, batches: AsyncIterator[Sequence[str]]) -> None:
        """Take in a server's list, sorted or not. When it breaks off, what `batches` raises is raised, and nothing of
        it counts."""
        runs: list[IO[str]] = []
        gathered: list[str] = []
        count = 0
        async for batch in batches:
            gathered.extend(batch)
            count += len(batch)
            if len(gathered) >= self._run_ids:
                runs.append(await asyncio.to_thread(self._write_run, gathered))
                gathered = []
        runs.append(await asyncio.to_thread(self._write_run, gathered))
        self._runs[server] = runs
        self.counts[server] = count

    def merged(self) -> Iterator[tuple[str, list[str]]]:
        """Every id, with the servers that list it, in the order of ids."""
        listed = [self._lines(run, server) for server, runs in self._runs.items() for run in runs]
        for name, places in groupby(heapq.merge(*listed), key=itemgetter(0)):
            yield name, list(dict.fromkeys(server for _, server in places))

    def close(self) -> None:
        self._files.close()

    def _write_run(self, ids: list[str]) -> IO[str]:
        ids.sort()
        opened = tempfile.TemporaryFile("w+", encoding="ascii", dir=self._directory)  # noqa: SIM115  closed by `close`
        run = self._files.enter_context(opened)
        run.writelines(f"{name}\n" for name in ids)
        run.flush()
        return run

    @staticmethod
    def _lines(run: IO[str], server: str) -> Iterator[tuple[str, str]]:
        run.seek(0)
        for line in run:
            yield line[:-1], server
