"""What this machine is: chip, memory, processor of the machine and of this Python, GPU. No model library is asked."""

from __future__ import annotations

import ctypes
import platform
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

#: A command of the system answers at once, or is not asked again.
_COMMAND_S = 5

#: How macOS calls the worst of its memory pressure.
_CRITICAL = 4

#: Gives a command's output, "" where it cannot be run or fails.
Run = Callable[[tuple[str, ...]], str]


@dataclass(frozen=True, slots=True)
class Hardware:
    """``system`` is ``Darwin`` or ``Linux``, ``version`` that of macOS or of the kernel; ``machine`` the processor's
    architecture and ``python`` the one that this Python was built for (``arm64``, ``x86_64``); ``memory`` in bytes;
    ``nvidia`` the name of an NVIDIA GPU, "" where there is none, ``nvidia_memory`` its bytes, 0 where it
    shares the machine's. In a container ``memory`` is what that allows."""

    system: str
    version: str
    machine: str
    python: str
    chip: str
    cores: int
    memory: int
    nvidia: str = ""
    nvidia_memory: int = 0

    @property
    def apple_silicon(self) -> bool:
        return self.system == "Darwin" and self.machine == "arm64"

    @property
    def rosetta(self) -> bool:
        """Whether this Python was built for Intel and is translated."""
        return self.apple_silicon and self.python != "arm64"

    def __str__(self) -> str:
        system = f"macOS {self.version}" if self.system == "Darwin" else f"{self.system} {self.machine}"
        own = f" with {self.nvidia_memory / 2**30:.0f} GB" if self.nvidia_memory else ""
        gpu = f", {self.nvidia}{own}" if self.nvidia else ""
        return f"{self.chip}, {self.cores} cores, {self.memory / 2**30:.0f} GB, {system}{gpu}"


@cache
def detect() -> Hardware:
    """The machine that this process runs on, looked at once."""
    return look(platform.system(), platform.machine(), _output)


def look(system: str, python: str, run: Run) -> Hardware:
    """A machine as its commands describe it. ``python`` is the architecture that Python says it runs on."""
    machine, version = python, platform.release()
    if system == "Darwin":
        version = run(("sw_vers", "-productVersion"))
        chip = run(("sysctl", "-n", "machdep.cpu.brand_string"))
        if run(("sysctl", "-n", "sysctl.proc_translated")) == "1":
            machine = "arm64"
    else:
        chip = _field(run(("cat", "/proc/cpuinfo")), "model name")
    nvidia, nvidia_memory = _nvidia(run) if system == "Linux" else ("", 0)
    return Hardware(
        system=system,
        version=version,
        machine=machine,
        python=python,
        chip=chip or machine,
        cores=psutil.cpu_count() or 1,
        memory=_memory(run(("cat", "/sys/fs/cgroup/memory.max"))),
        nvidia=nvidia,
        nvidia_memory=nvidia_memory,
    )


def memory_is_short(system: str = platform.system(), level: Callable[[], int] | None = None) -> bool:
    """Whether macOS says that memory is critically short, which it does before it ends programs; elsewhere False.

    ``level`` gives its ``kern.memorystatus_vm_pressure_level``: 1 is normal, 2 a warning, 4 critical.
    """
    return system == "Darwin" and (level or _pressure_level)() >= _CRITICAL


def _pressure_level() -> int:
    value = ctypes.c_int(0)
    size = ctypes.c_size_t(ctypes.sizeof(value))
    name = b"kern.memorystatus_vm_pressure_level"
    ctypes.CDLL(None).sysctlbyname(name, ctypes.byref(value), ctypes.byref(size), None, 0)
    return value.value


def _memory(allowed: str) -> int:
    """The machine's bytes, or those that its container is ``allowed`` (cgroup v2) where they are fewer."""
    total = int(psutil.virtual_memory().total)
    return min(total, int(allowed)) if allowed.strip().isdigit() else total


def _nvidia(run: Run) -> tuple[str, int]:
    """The first GPU's name and bytes."""
    listed = run(("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"))
    name, _, mebibytes = listed.partition("\n")[0].rpartition(",")
    return name.strip(), int(mebibytes) * 2**20 if mebibytes.strip().isdigit() else 0


def _field(text: str, name: str) -> str:
    """The value of the first line ``name : value``."""
    lines = (line.partition(":") for line in text.splitlines())
    return next((value.strip() for key, _, value in lines if key.strip() == name), "")


def _output(command: tuple[str, ...]) -> str:
    if command[0] == "cat":
        try:
            return Path(command[1]).read_text()
        except OSError:
            return ""
    try:
        done = subprocess.run(  # noqa: S603 - fixed words, no shell
            command, capture_output=True, text=True, timeout=_COMMAND_S, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
