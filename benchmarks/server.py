"""A whisperd of one's own for a benchmark: started on a free port, asked over HTTP, ended with the context."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import platform
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil

from app.hardware import detect

#: Flags that come before a benchmark's own: what is no trouble is not logged; and the same recording, which is sent
#: again and again, is worked on each time.
_FLAGS = ("--log-level", "warning", "--retry-keep-s", "0")


class Client:
    """One keep-alive connection, as a dictation app holds it; from several threads, one each."""

    def __init__(self, url: str, pid: int) -> None:
        self.url, self.pid = url, pid
        self._http = httpx.Client(base_url=url, timeout=3600)

    def transcribe(self, audio: Path | bytes, **fields: str) -> httpx.Response:
        with io.BytesIO(audio) if isinstance(audio, bytes) else audio.open("rb") as file:
            response = self._http.post("/v1/audio/transcriptions", files={"file": file}, data=fields)
        response.raise_for_status()
        return response

    def close(self) -> None:
        self._http.close()


class Server:
    """A ``whisperd serve`` with ``flags`` on the folder ``state``, which it finds again when it is started again.

    Its port stays the same. ``log`` is a file to which all its lives add what they say.
    """

    def __init__(self, state: Path, *flags: str, log: Path | None = None) -> None:
        port = free_port()
        self.url, self.state = f"http://127.0.0.1:{port}", state
        self._words = ["--port", str(port), "--state-dir", str(state), *_FLAGS, *flags]
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    def start(self, *, ready: bool = True) -> None:
        """Start it; ``ready`` waits for its model."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("WHISPERD_")}
        command = [sys.executable, "-m", "app", "serve", *self._words]
        with self._log.open("ab") if self._log else contextlib.nullcontext() as stderr:
            self._process = subprocess.Popen(command, env=environment, stderr=stderr)
        if ready:
            self.wait_until_ready()

    def wait_until_ready(self) -> None:
        assert self._process is not None, "not started"
        wait_until_answered(self._process, f"{self.url}/ready")

    def children(self, module: str = "") -> list[psutil.Process]:
        """Its living children, or those that run ``module``, such as ``app.worker.child``."""
        found = []
        for child in psutil.Process(self.pid).children():
            with contextlib.suppress(psutil.Error):
                if child.status() != psutil.STATUS_ZOMBIE and module in " ".join(child.cmdline()):
                    found.append(child)
        return found

    def kill(self) -> None:
        """SIGKILL, as a crash or the power's end would; harmless where it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        """Ask it to end, and wait until it has."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()


@contextlib.contextmanager
def serving(*flags: str) -> Iterator[Client]:
    """A ready server with ``flags`` of ``whisperd serve``."""
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder), *flags)
        try:
            server.start()
            with contextlib.closing(Client(server.url, server.pid)) as client:
                yield client
        finally:
            server.stop()


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until_answered(process: subprocess.Popen[bytes], url: str) -> None:
    """Wait until ``url``, which ``process`` serves, is answered with success."""
    while process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(url).is_success:
                return
        time.sleep(0.1)
    raise SystemExit("the server did not start")


def figures(url: str) -> dict[str, float]:
    """What ``/metrics`` says: each line's name with its labels, and its value."""
    lines = httpx.get(f"{url}/metrics", timeout=60).text.splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[:1] != "#")}


def parser_of(doc: str | None) -> argparse.ArgumentParser:
    """A benchmark's arguments as far as they are the same for all that choose a backend and a model."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="faster-whisper", choices=["faster-whisper", "mlx-whisper"])
    parser.add_argument("--model", default="micro", help="micro, or a folder in Hugging Face or the backend's format")
    return parser


def turned(names: list[str], by: int) -> list[str]:
    """``names`` with another one first in each round ``by``: so what a turn's place does hits all alike."""
    by %= len(names)
    return names[by:] + names[:by]


def machine() -> str:
    """A line on what the figures were measured on."""
    found = detect()
    chip = "" if found.chip == found.machine else found.chip
    words = [f"{found.system} {found.python}", chip, f"{found.cores} cores", f"Python {platform.python_version()}"]
    return ", ".join(word for word in words if word)
