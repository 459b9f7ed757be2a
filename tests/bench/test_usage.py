"""Memory and processor time of a process and all below it."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

from app.bench import usage

#: Holds 64 MiB in a process below it, spends some time, says so, and waits to be told to end.
_PROGRAM = """
import subprocess, sys
child = "import sys; held = bytearray(b'x' * 2**26); sum(range(10**6)); print('held', flush=True); sys.stdin.read()"
subprocess.run([sys.executable, "-c", child])
"""


def test_the_peak_and_the_time_of_a_tree_are_seen() -> None:
    command = [sys.executable, "-c", _PROGRAM]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        kind = usage.memory_kind([process.pid])
        assert kind in ("pss", "footprint", "uss", "rss")
        assert process.stdout is not None
        process.stdout.readline()
        with usage.Watch(process.pid, kind) as watch:
            before = usage.cpu_seconds(process.pid)
            while not watch.peak:
                pass
        assert 2**26 < watch.peak < 2**28
        assert usage.memory(process.pid, "rss") > 2**26
        assert before > 0
        process.communicate(b"")
    assert usage.tree(process.pid) == []
    assert usage.memory(process.pid, kind) == 0


def test_macos_writes_no_more_than_the_structure_holds() -> None:
    assert ctypes.sizeof(usage._Usage) == 16 + 10 * 8
    assert usage._Usage.phys_footprint.offset == 16 + 7 * 8


def test_this_process_can_be_looked_at() -> None:
    assert usage.memory(os.getpid(), usage.memory_kind([os.getpid()])) > 2**20
