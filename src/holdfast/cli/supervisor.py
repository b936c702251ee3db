"""The supervisor: starts its children, starts again whichever dies, replaces one by a newer one without a gap, and
ends them when it is told to end.

Rules.

- One thread, and nothing open: a child is a fork of it, and must not inherit a lock that nobody will release.
- A child is killed by the kernel when its parent dies, from the moment of the fork on; so are the children's children.
  Not asked to end, but killed: a process that is just starting, or waits for a lock, would not hear. Anything may be
  killed at any time, so nothing is lost by it.
- A child that is replaced is asked to end once its successor is up, and may take its time: it ends when the requests
  that it has begun do. A successor that does not come up changes nothing.
"""

import ctypes
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import FrameType

# A child that dies at once would otherwise be started again without end.
RESPAWN_SECONDS = 0.5

# Requests in flight are given this long to end when the server is stopped; then they are cut off.
DRAIN_SECONDS = 30

# How often it is asked whether a child is to be replaced.
LOOK_SECONDS = 1.0

# A successor opens the store and listens; it has as long as the slowest start after a crash, and some.
COMING_LOOK_SECONDS = 0.05
COMING_MAX_SECONDS = 120.0

_PR_SET_PDEATHSIG = 1
_LOGGER = logging.getLogger(__name__)
_LIBC = ctypes.CDLL(None, use_errno=True)


class _Stop(BaseException):
    """SIGINT or SIGTERM came."""


@dataclass(frozen=True, slots=True)
class Replacement:
    """When a child gives way to another that is made in the same way."""

    name: str
    wanted: Callable[[], bool]
    """Asked every LOOK_SECONDS."""
    sockets: Callable[[], frozenset[int]]
    """Where the child's kind listens: the successor is up when it has added `count` to them."""
    count: int


def supervise(children: Mapping[str, Callable[[], None]], replacement: Replacement | None = None) -> None:
    """Run each of `children` in a process of its own until SIGINT or SIGTERM."""
    os.register_at_fork(before=_remember_parent, after_in_child=_die_with_parent)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _raise_stop)
    # Held back, so that the wait for a child that ends can have an end of its own.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGCHLD,))
    if replacement is not None:
        # What made the replacement necessary may say so, as with other servers. It is looked for anyway.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    supervisor = _Supervisor(children, replacement)
    try:
        supervisor.run()
    except _Stop:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        _end(supervisor.processes)


@dataclass(frozen=True, slots=True)
class _Successor:
    """A child that is coming up in another's place."""

    process: int
    before: frozenset[int]
    deadline: float


class _Supervisor:
    """Who runs, who is on the way, and who is on the way out."""

    def __init__(self, children: Mapping[str, Callable[[], None]], replacement: Replacement | None) -> None:
        self._children = children
        self._replacement = replacement
        self._running: dict[int, tuple[str, float]] = {}
        self._successor: _Successor | None = None
        self._retiring: set[int] = set()

    @property
    def processes(self) -> list[int]:
        coming = [self._successor.process] if self._successor is not None else []
        return [*self._running, *coming, *self._retiring]

    def run(self) -> None:
        """Until a signal raises _Stop."""
        for name in self._children:
            self._run_child(name)
        while True:
            while (found := os.waitpid(-1, os.WNOHANG)) != (0, 0):
                self._ended(*found)
            if self._replacement is not None:
                self._replace(self._replacement)
            wait = LOOK_SECONDS if self._successor is None else COMING_LOOK_SECONDS
            signal.sigtimedwait((signal.SIGCHLD,), wait)

    def _run_child(self, name: str) -> None:
        self._running[_start(self._children[name])] = name, time.monotonic()

    def _ended(self, process: int, status: int) -> None:
        if process in self._retiring:
            self._retiring.discard(process)
            return
        if self._successor is not None and process == self._successor.process:
            self._successor = None
            _LOGGER.error("the new server did not come up (%s); the old one goes on", _in_words(status))
            return
        name, begun = self._running.pop(process)
        _LOGGER.warning("%s ended (%s); it is started again", name, _in_words(status))
        time.sleep(max(0.0, RESPAWN_SECONDS - (time.monotonic() - begun)))
        self._run_child(name)

    def _replace(self, replacement: Replacement) -> None:
        coming = self._successor
        if coming is None:
            if replacement.wanted():
                before = replacement.sockets()
                process = _start(self._children[replacement.name])
                self._successor = _Successor(process, before, time.monotonic() + COMING_MAX_SECONDS)
            return
        if len(replacement.sockets() - coming.before) >= replacement.count:
            for process in [process for process, (name, _) in self._running.items() if name == replacement.name]:
                del self._running[process]
                self._retiring.add(process)
                _send(process, signal.SIGTERM)
            self._running[coming.process] = replacement.name, time.monotonic()
            self._successor = None
            _LOGGER.info("the new server is up; the old one ends with its last request")
        elif time.monotonic() > coming.deadline:
            _send(coming.process, signal.SIGKILL)


def _start(work: Callable[[], None]) -> int:
    # A signal between the fork and the child's own handlers must end the child, not make it raise in our frames.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD))
            work()
            status = 0
        except KeyboardInterrupt:
            status = 0
        except BaseException:  # the top of a process: said, and then it ends
            _LOGGER.exception("a child of the supervisor failed")
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
    return child


def _end(children: list[int]) -> None:
    """Ask them to end, wait, and kill what has not ended in time."""
    for child in children:
        _send(child, signal.SIGTERM)
    deadline = time.monotonic() + DRAIN_SECONDS
    while children and time.monotonic() < deadline:
        children = [child for child in children if os.waitpid(child, os.WNOHANG) == (0, 0)]
        time.sleep(0.01)
    for child in children:
        _send(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _send(child: int, number: int) -> None:
    try:
        os.kill(child, number)
    except ProcessLookupError:
        pass


_parent = 0


def _remember_parent() -> None:
    global _parent  # noqa: PLW0603  what the child compares its parent with
    _parent = os.getpid()


def _die_with_parent() -> None:
    # Our handlers would act on the parent's copy of things: told to end before it has its own, a child just ends.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != _parent:
        os._exit(1)


def _raise_stop(number: int, frame: FrameType | None) -> None:
    raise _Stop


def _in_words(status: int) -> str:
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return f"status {os.WEXITSTATUS(status)}"
