"""The machine that is measured, in the words that people compare by."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True, slots=True)
class Machine:
    """``chip`` as the system names it, "" where it does not; ``memory_gib`` whole GiB; ``system`` with its version."""

    chip: str
    cores: int
    memory_gib: int
    system: str

    def __str__(self) -> str:
        words = [self.chip, f"{self.cores} cores", f"{self.memory_gib} GiB", self.system]
        return ", ".join(word for word in words if word)


def this_machine() -> Machine:
    mac = platform.mac_ver()[0]
    name = f"macOS {mac}" if mac else f"{platform.system()} {platform.release()}"
    memory = round(psutil.virtual_memory().total / 2**30)
    return Machine(_chip(), os.cpu_count() or 1, memory, f"{name} {platform.machine()}")


def _chip() -> str:
    if sys.platform == "darwin":
        command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout.strip()  # noqa: S603
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return " ".join(value.split())
    return ""
