"""While it has work, the Mac does not fall asleep for want of a user: ``caffeinate`` holds the assertion."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from subprocess import DEVNULL

import anyio
from anyio.abc import Process

#: How often it is looked whether there is work: what is done within that needs no assertion.
_LOOK_S = 1.0


async def stay_awake(busy: Callable[[], bool]) -> None:
    """Hold the assertion while ``busy``, until cancelled. Returns at once where there is no ``caffeinate``.

    A caffeinate whose server was killed ends with it (``-w``).
    """
    command = shutil.which("caffeinate")
    if command is None:
        return
    holder: Process | None = None
    try:
        while True:
            if busy() and (holder is None or holder.returncode is not None):
                words = [command, "-i", "-w", str(os.getpid())]
                holder = await anyio.open_process(words, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL)
            elif not busy() and holder is not None:
                await _end(holder)
                holder = None
            await anyio.sleep(_LOOK_S)
    finally:
        if holder is not None:
            with anyio.CancelScope(shield=True):
                await _end(holder)


async def _end(holder: Process) -> None:
    if holder.returncode is None:
        holder.terminate()
    await holder.wait()
    await holder.aclose()
