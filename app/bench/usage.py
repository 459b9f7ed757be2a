"""What a process and all below it take: seconds of CPU, and memory at its peak."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import operator
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any, Self

import psutil

#: How often the memory is looked at.
_LOOK_S = 0.1
#: Memory is counted exactly only where the resident bytes have grown by so much since the last count: it costs.
_STEP = 2**20


def tree(pid: int) -> list[psutil.Process]:
    """The process and its living descendants; nothing where it has ended."""
    with contextlib.suppress(psutil.Error):
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    return []


def cpu_seconds(pid: int) -> float:
    """Seconds of CPU, user's and system's, that the tree has used so far.

    Linux hands what a child used to its parent when it has ended and was waited for: nothing is lost. macOS does not:
    there the seconds of children that have ended are missing.
    """
    return float(sum(_over(tree(pid), lambda process: sum(process.cpu_times()[:4]))))


def memory_kind(pids: Iterable[int]) -> str:
    """How the memory of all these trees can be counted, best first.

    ``pss``: what is shared is shared out among those who share it, the other sides among them (Linux). ``footprint``:
    what Activity Monitor shows, a GPU's buffers included (macOS). ``uss``: what is shared is left out. ``rss``: it
    counts for each, so that trees of several processes look larger than they are.
    """
    processes = [process for pid in pids for process in tree(pid)]
    if sys.platform == "darwin" and all(_footprint(process) for process in processes):
        return "footprint"
    for kind in ("pss", "uss"):
        with contextlib.suppress(psutil.Error, AttributeError):
            for process in processes:
                getattr(process.memory_full_info(), kind)
            return kind
    return "rss"


def memory(pid: int, kind: str) -> int:
    """Bytes of the tree by ``kind`` of ``memory_kind``."""
    if kind == "rss":
        return sum(_over(tree(pid), lambda process: process.memory_info().rss))
    if kind == "footprint":
        return sum(_over(tree(pid), _footprint))
    return sum(_over(tree(pid), lambda process: operator.attrgetter(kind)(process.memory_full_info())))


def _over(processes: list[psutil.Process], figure: Callable[[psutil.Process], Any]) -> list[Any]:
    """The figure of each process that has not ended meanwhile."""
    found = []
    for process in processes:
        with contextlib.suppress(psutil.Error):
            found.append(figure(process))
    return found


class _Usage(ctypes.Structure):
    """macOS's ``rusage_info_v0`` (sys/resource.h)."""

    _fields_ = (
        ("uuid", ctypes.c_uint8 * 16),
        *((f"before_{number}", ctypes.c_uint64) for number in range(7)),
        ("phys_footprint", ctypes.c_uint64),
        ("start_time", ctypes.c_uint64),
        ("exit_time", ctypes.c_uint64),
    )


def _footprint(process: psutil.Process) -> int:
    """The bytes that macOS charges to the process; 0 where it does not say."""
    usage = _Usage()
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL("/usr/lib/libproc.dylib")
        if library.proc_pid_rusage(process.pid, 0, ctypes.byref(usage)) == 0:
            return int(usage.phys_footprint)
    return 0


class Watch:
    """Between entering and leaving: ``cpu_seconds`` of the tree below ``pid``, and its ``peak`` in bytes by ``kind``.

    The peak is what is counted whenever the resident bytes (macOS: the footprint) are more than ever before: one
    that is shorter than 0.1 s may be missed.
    """

    def __init__(self, pid: int, kind: str) -> None:
        self._pid, self._kind = pid, kind
        self.cpu_seconds, self.peak = 0.0, 0
        self._done = threading.Event()
        # A daemon: Ctrl-C may come between its start and the block that would stop it.
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._before = cpu_seconds(self._pid)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.cpu_seconds = cpu_seconds(self._pid) - self._before
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        count, most = functools.partial(memory, self._pid), 0
        quick = self._kind if self._kind == "footprint" else "rss"
        while not self._done.is_set():
            if (now := count(quick)) > most + _STEP or not self.peak:
                most = now
                self.peak = max(self.peak, count(self._kind))
            self._done.wait(_LOOK_S)
