"""What all tests share: the clips, and a real server over a real socket."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
import wave
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import httpx
import jiwer
import psutil
import pytest

from tests.hub import Hub, running_hub

AUDIO = Path(__file__).parent / "data" / "audio"

# A shell that starts the tests in the background makes them, and all that they start, deaf to Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclass(frozen=True)
class Clip:
    """A recording of the test set and what is said in it."""

    path: Path
    language: str
    duration: float
    text: str


def clips(prefix: str = "") -> list[Clip]:
    """The test set's clips whose file names start with ``prefix``."""
    rows = json.loads((AUDIO / "manifest.json").read_text())
    return [
        Clip(AUDIO / row["file"], row["language"], row["duration"], row["text"])
        for row in rows
        if row["file"].startswith(prefix)
    ]


def cut_off(clip: Clip, path: Path) -> Path:
    """``path``, with the first third of the clip's file."""
    path.write_bytes(clip.path.read_bytes()[: clip.path.stat().st_size // 3])
    return path


@dataclass(frozen=True)
class Recording:
    """Clips joined to a long recording and what is said in it."""

    path: Path
    duration: float
    text: str


def join_clips(parts: list[Clip], path: Path, gap_s: float = 0.5) -> Recording:
    """Write the clips one after the other, with silence between them, to the WAV file ``path`` (16 kHz mono s16)."""
    gap = bytes(2 * int(gap_s * 16_000))
    return _recording(path, gap.join(_pcm(part.path) for part in parts), parts)


def join_windows(parts: list[Clip], path: Path, pause_s: float = 2.5) -> Recording:
    """The same, but each clip over and over until it is a window: a pause of over 2 s ends one that holds 20 s."""
    filled = [part for part in parts for _ in range(math.ceil(20.5 / part.duration))]
    breath, pause = bytes(2 * 4_800), bytes(2 * int(pause_s * 16_000))
    pcm = b""
    for number, part in enumerate(filled):
        pcm += _pcm(part.path) + (breath if filled[number + 1 : number + 2] == [part] else pause)
    return _recording(path, pcm, filled)


def _recording(path: Path, pcm: bytes, parts: list[Clip]) -> Recording:
    """``pcm``, in which ``parts`` are spoken, as a WAV file."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(pcm)
    return Recording(path, len(pcm) / 32_000, " ".join(part.text for part in parts))


def _pcm(path: Path) -> bytes:
    """A 16 kHz mono clip's samples as s16."""
    with av.open(str(path)) as container:
        return b"".join(frame.to_ndarray().astype("<i2").tobytes() for frame in container.decode(audio=0))


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """Note what a test measured for a row of docs/reliability.md, and with ``holds`` whether that reaches its goal: of
    times, which depend on the machine, the page says so and the test passes.
    """
    return lambda row, text, holds=True: record_property(f"row {row}", text if holds else f"{text} (**missed**)")


@pytest.fixture(scope="session")
def long_recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """30 English sentences, about two minutes: several windows."""
    return join_clips(clips("en")[:30], tmp_path_factory.mktemp("long") / "long.wav")


def _plain(text: str) -> str:
    kept = (c if c.isalnum() or c in "' " else " " for c in text.lower().replace("-", " "))
    return " ".join("".join(kept).split()) or "(nothing)"


def word_error_rate(references: list[str], hypotheses: list[str]) -> float:
    """Word errors a reference word over all pairs, case and punctuation aside."""
    return jiwer.wer([_plain(text) for text in references], [_plain(text) for text in hypotheses])


@dataclass
class Server:
    """A running whisperd. ``log`` is where its standard error goes."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def children(self, module: str) -> list[psutil.Process]:
        """The server's children that run ``module``, such as ``app.worker.child``."""
        return children_of(self.pid, module)

    def wait_until_ready(self, seconds: float = 120) -> None:
        wait_for(lambda: httpx.get(f"{self.url}/ready").is_success, seconds, self.log)

    def transcribe(self, path: Path, *, timeout: float = 300, **fields: str | list[str]) -> httpx.Response:
        with path.open("rb") as file:
            return httpx.post(f"{self.url}/v1/audio/transcriptions", files={"file": file}, data=fields, timeout=timeout)

    def stop(self) -> int:
        """Ask it to end; returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


def script_of(folder: Path, **script: object) -> Path:
    """A script for the fake backend, as ``model=``."""
    path = folder / "script.json"
    path.write_text(json.dumps(script))
    return path


def _flag(name: str, value: object) -> list[str]:
    flag = f"--{name.replace('_', '-')}"
    return [flag] if value is True else [flag, str(value)]


def children_of(pid: int, module: str) -> list[psutil.Process]:
    """The living children of a process that run ``module``."""
    return [child for child in psutil.Process(pid).children() if any(module in word for word in _command_of(child))]


def _command_of(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.Error):
        return process.cmdline()
    return []


def wait_for(condition: Callable[[], bool], seconds: float, log: Path | None = None) -> None:
    """Poll ``condition`` until it holds; fails the test with the server's log after ``seconds``."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            if condition():
                return
        time.sleep(0.02)
    pytest.fail(f"not within {seconds} s; the server said:\n{log.read_text() if log else ''}")


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


StartServer = Callable[..., Server]


@pytest.fixture(scope="session")
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartServer]:
    """Start a server with flags as keywords (``model="micro"``) and environment in ``env``; all end with the
    session.
    """
    running: list[Server] = []
    cache = tmp_path_factory.mktemp("cache")

    def start(*, ready: bool = True, env: dict[str, str] | None = None, **flags: object) -> Server:
        folder = tmp_path_factory.mktemp("server")
        port = flags.get("port", free_port())
        # Tests send the same clip again and again, and want it done each time.
        given = {"port": port, "cache_dir": cache, "state_dir": folder / "state", "retry_keep_s": 0, **flags}
        words = [word for name, value in given.items() for word in _flag(name, value)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("WHISPERD_")}
        # A test that listens beyond this machine announces nothing to the network that it runs in.
        environment |= {"WHISPERD_CONFIG": str(folder / "none.toml"), "WHISPERD_BONJOUR": "false", **(env or {})}
        log = folder / "log"
        with log.open("wb") as stderr:
            process = subprocess.Popen([sys.executable, "-m", "app", "serve", *words], stderr=stderr, env=environment)
        scheme = "https" if "tls_cert" in flags else "http"
        server = Server(f"{scheme}://127.0.0.1:{port}", process, log)
        running.append(server)
        wait_for(lambda: httpx.get(f"{server.url}/health", verify=False).is_success, 60, log)  # noqa: S501
        if ready:
            server.wait_until_ready()
        return server

    yield start
    for server in running:
        server.process.kill()
        server.process.wait()


@pytest.fixture
def hub() -> Iterator[tuple[str, type[Hub]]]:
    """A stand-in for the model hub: its address and its class."""
    with running_hub() as hub:
        yield hub


@pytest.fixture(scope="session")
def server(start_server: StartServer) -> Server:
    """faster-whisper with the bundled micro, shared by all tests that do it no harm."""
    return start_server(backend="faster-whisper", model="micro")
