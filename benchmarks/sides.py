"""The sides that ``benchmarks.table`` compares: each a tree of processes, warm, and idle while another one works."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from benchmarks.library import Answer, Library, folder_of
from benchmarks.server import Client, free_port, serving, wait_until_answered

#: The sides in the order in which they are shown, and how they are called there.
NAMES = {"whisperd": "whisperd", "library": "the library", "plain": "plain server"}
#: How the library is loaded and called, a row of ``benchmarks.library.LIBRARIES``, by backend.
_LIBRARY = {"faster-whisper": "faster-whisper-plain", "mlx-whisper": "mlx-whisper"}


class Side(Protocol):
    """``pid`` is the root of its processes. ``many``: whether it has several callers at once."""

    many: bool

    @property
    def pid(self) -> int: ...

    def transcribe(self, path: Path, language: str | None) -> Answer: ...


class Over:
    """A server over HTTP, by one connection a caller; the seconds are those from the request to its answer."""

    many = True

    def __init__(self, client: Client) -> None:
        self.pid, self._client = client.pid, client

    def transcribe(self, path: Path, language: str | None) -> Answer:
        fields = {"language": language} if language else {}
        started = time.perf_counter()
        text = self._client.transcribe(path, **fields).json()["text"]
        return Answer(text, time.perf_counter() - started)


class Alone:
    """The library in a process of its own; the seconds are those of the call in it."""

    many = False

    def __init__(self, library: Library) -> None:
        self.pid, self._library = library.pid, library

    def transcribe(self, path: Path, language: str | None) -> Answer:
        return self._library.transcribe(path, language)


@contextlib.contextmanager
def running(backend: str, model: str, *, beam_size: int, flags: list[str]) -> Iterator[dict[str, Side]]:
    """All sides, loaded, by name. ``flags`` go to ``whisperd serve``; mlx-whisper has no plain server."""
    folder = folder_of(model, backend)
    words = ["--backend", backend, "--model", model, "--beam-size", str(beam_size)]
    if backend == "faster-whisper":
        words += ["--device", "cpu"]
    with contextlib.ExitStack() as stack:
        sides: dict[str, Side] = {
            "whisperd": Over(stack.enter_context(serving(*words, *flags))),
            "library": Alone(stack.enter_context(Library(_LIBRARY[backend], folder, beam_size=beam_size))),
        }
        if backend == "faster-whisper":
            sides["plain"] = Over(stack.enter_context(plain(folder, beam_size)))
        yield sides


@contextlib.contextmanager
def plain(folder: Path, beam_size: int = 1) -> Iterator[Client]:
    """``benchmarks.plain_server`` on the CTranslate2 model in ``folder``."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.plain_server", "--model", str(folder)]
    process = subprocess.Popen([*command, "--port", str(port), "--beam-size", str(beam_size)])
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_answered(process, f"{url}/openapi.json")
        with contextlib.closing(Client(url, process.pid)) as client:
            yield client
    finally:
        process.terminate()
        process.wait()
