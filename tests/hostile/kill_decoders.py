"""Decoders killed while they have a file in hand: ``python -m tests.hostile.kill_decoders --times 500``.

Each time a recording is sent, and its decoder gets a signal once it has written some of it: once, and the recording is
decoded by a fresh one; or every time, and the recording is refused. The next recording must then be heard.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import httpx
import numpy as np
import psutil
from tqdm import tqdm

from tests.conftest import children_of
from tests.hostile.media import encode, speech

#: What a crash in a native library and a user's kill look like from outside.
SIGNALS = (signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT, signal.SIGBUS)
#: An answer that takes longer never comes.
HANGS_S = 60


@cache
def recording() -> bytes:
    """Two minutes of speech: some tenths of a second of decoding, in a short turn."""
    return encode(np.tile(speech(), 30), "ogg", "libopus", rate=48_000)


@cache
def dictation() -> bytes:
    return encode(speech(), "flac", "flac")


@dataclass
class Findings:
    """``answers`` counts (kills that were meant, kills that hit, status); ``wrong`` holds what should not have been."""

    answers: Counter[tuple[str, int, int]] = field(default_factory=Counter)
    next_ones: int = 0
    slowest_s: float = 0.0
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        rows = [
            f"{meant}, {hits} hit: {status} x {count}" for (meant, hits, status), count in sorted(self.answers.items())
        ]
        return "\n".join([*rows, f"next ones heard: {self.next_ones}", f"slowest {self.slowest_s:.2f} s", *self.wrong])


def kill(url: str, pid: int, spool: Path, numbers: range, done: Callable[[], object] = lambda: None) -> Findings:
    """A recording and the next one for each of ``numbers``, which decide on signals and moments."""
    findings = Findings()
    with ThreadPoolExecutor(1) as pool:
        for number in numbers:
            rng = random.Random(number)
            meant = rng.choice(("once", "once", "always"))
            over = threading.Event()
            killer = pool.submit(_kill, pid, spool, rng, meant, over)
            begun = time.monotonic()
            answer = _post(url, recording())
            findings.slowest_s = max(findings.slowest_s, time.monotonic() - begun)
            over.set()
            hits = killer.result()
            findings.answers[meant, min(hits, 2), answer.status_code] += 1
            expected = 200 if hits < 2 else 400
            if answer.status_code != expected and not (hits >= 2 and answer.status_code == 200):
                findings.wrong.append(f"number {number}: {meant}, {hits} hit, {answer.status_code} {answer.text[:200]}")
            if answer.status_code == 400 and "makes the decoder fail" not in answer.json()["error"]["message"]:
                findings.wrong.append(f"number {number}: {answer.text[:200]}")
            following = _post(url, dictation())
            if following.status_code == 200:
                findings.next_ones += 1
            else:
                findings.wrong.append(f"number {number}, the next one: {following.status_code} {following.text[:200]}")
            done()
    return findings


def _post(url: str, content: bytes) -> httpx.Response:
    return httpx.post(f"{url}/v1/audio/transcriptions", files={"file": content}, timeout=HANGS_S)


def _kill(pid: int, spool: Path, rng: random.Random, meant: str, over: threading.Event) -> int:
    """Kill the decoder in hand once or always, each a moment after it began to write; how often it was done."""
    hits, known = 0, set[int]()
    while not over.wait(0.003):
        written = sum(path.stat().st_size for path in spool.glob("server-*/job-*/*pcm*") if path.exists())
        if not written:
            continue
        if over.wait(rng.random() * 0.15):
            break
        for child in children_of(pid, "app.worker.decoder"):
            if child.pid not in known and not over.is_set() and _is_busy(child):
                known.add(child.pid)
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.send_signal(rng.choice(SIGNALS))
                    hits += 1
        if hits and meant == "once":
            break
    return hits


def _is_busy(decoder: psutil.Process) -> bool:
    """Whether it has a PCM file open."""
    try:
        return any("pcm" in file.path for file in decoder.open_files())
    except psutil.Error:
        return False


@contextlib.contextmanager
def _serving() -> Iterator[tuple[str, int, Path]]:
    """A server of the script's own with the fake backend: address, process, spool."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        flags = f"--backend fake --model fake --retry-keep-s 0 --port {port} --state-dir {folder} --cache-dir {folder}"
        environment = {**os.environ, "WHISPERD_CONFIG": f"{folder}/none.toml"}
        command = [sys.executable, "-m", "app", "serve", *flags.split()]
        process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        url = f"http://127.0.0.1:{port}"
        try:
            for _ in range(600):
                with contextlib.suppress(httpx.TransportError):
                    if httpx.get(f"{url}/ready").is_success:
                        break
                time.sleep(0.1)
            yield url, process.pid, Path(folder) / "spool"
        finally:
            process.terminate()
            process.wait(30)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=500)
    parser.add_argument("--first", type=int, default=0, help="the first number")
    given = parser.parse_args()
    with _serving() as (url, pid, spool), tqdm(total=given.times, mininterval=1) as bar:
        findings = kill(url, pid, spool, range(given.first, given.first + given.times), bar.update)
    print(findings)
    return 1 if findings.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
