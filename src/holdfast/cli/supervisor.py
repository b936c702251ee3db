"""The supervisor: starts its children, starts again whichever dies, and ends them when it is told to end.

Rules.

- One thread, and nothing open: a child is a fork of it, and must not inherit a lock that nobody will release.
- A child is killed by the kernel when its parent dies, from the moment of the fork on; so are the children's children.
  Not asked to end, but killed: a process that is just starting, or waits for a lock, would not hear. Anything may be
  killed at any time, so nothing is lost by it.
"""

import ctypes
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from types import FrameType

# A child that dies at once would otherwise be started again without end.
RESPAWN_SECONDS = 0.5

# Requests in flight are given this long to end when the server is stopped; then they are cut off.
DRAIN_SECONDS = 30

_PR_SET_PDEATHSIG = 1
_LOGGER = logging.getLogger(__name__)
_LIBC = ctypes.CDLL(None, use_errno=True)


class _Stop(BaseException):
    """SIGINT or SIGTERM came."""


def supervise(children: Mapping[str, Callable[[], None]]) -> None:
    """Run each of `children` in a process of its own until SIGINT or SIGTERM."""
    running: dict[int, tuple[str, float]] = {}
    os.register_at_fork(before=_remember_parent, after_in_child=_die_with_parent)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _raise_stop)
    try:
        for name, work in children.items():
            running[_start(work)] = name, time.monotonic()
        while True:
            child, status = os.waitpid(-1, 0)
            name, begun = running.pop(child)
            _LOGGER.warning("%s ended (%s); it is started again", name, _in_words(status))
            time.sleep(max(0.0, RESPAWN_SECONDS - (time.monotonic() - begun)))
            running[_start(children[name])] = name, time.monotonic()
    except _Stop:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        _end(list(running))


def _start(work: Callable[[], None]) -> int:
    # A signal between the fork and the child's own handlers must end the child, not make it raise in our frames.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
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
