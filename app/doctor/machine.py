"""The machine and its Python: is it what the backends need?"""

from __future__ import annotations

import platform
from collections.abc import Iterator

from app.backends import installed
from app.backends.base import openblas_preload
from app.doctor.check import Check, failed, ok, warning
from app.hardware import Hardware

#: The oldest macOS that MLX's wheels are made for.
MLX_MACOS = 14


def check_machine(hardware: Hardware) -> Iterator[Check]:
    yield ok("machine", f"{hardware}.")
    if hardware.system == "Darwin":
        yield _macos(hardware)
    yield _python(hardware)
    if hardware.system == "Linux" and installed("mlx-whisper") and not hardware.nvidia:
        yield _blas(openblas_preload())


def _macos(hardware: Hardware) -> Check:
    found = f"macOS {hardware.version}."
    major = hardware.version.partition(".")[0]
    if hardware.apple_silicon and major.isdigit() and int(major) < MLX_MACOS:
        # No failure of its own: mlx-whisper, where it is chosen, fails by itself then.
        return warning("macos", f"{found} MLX needs {MLX_MACOS}.", f"Update to macOS {MLX_MACOS}, or use whisper.cpp.")
    return ok("macos", found)


def _python(hardware: Hardware) -> Check:
    version = f"Python {platform.python_version()} for {hardware.python}"
    if hardware.rosetta:
        return failed(
            "python",
            f"{version} is translated by Rosetta on this {hardware.machine} Mac: no MLX, and all is slow.",
            "Install a Python for Apple Silicon (python.org, or Homebrew in /opt/homebrew), and whisperd with that.",
        )
    return ok("python", f"{version}.")


def _blas(path: str | None) -> Check:
    if path is None:
        return warning(
            "blas",
            "MLX's CPU build works with a slow BLAS here.",
            "Make it several times faster with: sudo apt install libopenblas0-pthread",
        )
    return ok("blas", f"MLX on the CPU uses {path}.")
