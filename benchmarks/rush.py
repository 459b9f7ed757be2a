"""What happens when everybody comes at once: many requests on connections of their own, a millisecond apart.

Each wave's first answers are counted; who is answered 429 obeys ``Retry-After`` until it has its 200. Equal recordings
in unequal files, so that the order in which they end shows how fair the queue is. Beside each wave a process of its own
asks ``/health`` and looks at the HTTP process's memory.

    python -m benchmarks.rush                          200 requests, three waves, micro
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import itertools
import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

import httpx
import numpy as np
import psutil
from tqdm import tqdm

from benchmarks.recordings import as_wav, numbered, samples
from benchmarks.server import Client, machine, parser_of, serving
from tests.conftest import clips

_URL = "/v1/audio/transcriptions"
#: How often the health is asked for.
_LOOK_S = 0.02


@dataclass
class Wave:
    """What came of one wave; times in seconds from its first request."""

    first: Counter[str] = field(default_factory=Counter)
    #: Of every 429: its Retry-After, "" where it had none.
    retry_after: list[str] = field(default_factory=list)
    #: Who was taken in at once, in the order in which their answers came.
    order: list[int] = field(default_factory=list)
    last: Counter[str] = field(default_factory=Counter)
    attempts: int = 0
    seconds: float = 0.0
    before: int = 0
    peak: int = 0
    after: int = 0
    health: list[float] = field(default_factory=list)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--waves", type=int, default=3)
    parser.add_argument("--apart", type=float, default=1, help="milliseconds between two requests")
    parser.add_argument("--patience", type=float, default=600, help="seconds after which nobody tries again")
    parser.add_argument("--settle", type=float, default=2, help="seconds after a wave before memory is looked at")
    options = parser.parse_args()
    with serving("--backend", options.backend, "--model", options.model) as client:
        clip, numbers = as_wav(samples(clips("en")[0].path)), itertools.count()
        for _ in range(3):
            client.transcribe(numbered(clip, next(numbers)), language="en")
        health, _ = watched(client, lambda: time.sleep(2))
        waves = []
        for _ in tqdm(range(options.waves)):
            wave = Wave(before=_memory(client))
            work = functools.partial(_wave, wave, client, clip, numbers, options)
            wave.health, wave.peak = watched(client, lambda: asyncio.run(work()))  # noqa: B023
            time.sleep(options.settle)
            wave.after = _memory(client)
            waves.append(wave)
    print(machine())
    print(f"{options.backend}, {options.model}: {options.requests} requests {options.apart:g} ms apart")
    print(f"  /health while nothing else is asked: {_spread(health)}")
    for number, wave in enumerate(waves, 1):
        report(number, wave, options.requests)


def report(number: int, wave: Wave, requests: int) -> None:
    bad = [each for each in wave.retry_after if not (each.isdigit() and 1 <= int(each) <= 120)]
    seconds = sorted(int(each) for each in wave.retry_after if each not in bad)
    print(f"wave {number}")
    print(f"  first answers   {_counts(wave.first)}; of {requests}, lost {requests - sum(wave.first.values())}")
    print(f"  Retry-After     {len(seconds)} in 1..120", end="")
    print(f" ({seconds[0]} to {seconds[-1]})" if seconds else "", end="")
    print(f", {len(bad)} missing or beyond")
    print(f"  in the end      {_counts(wave.last)} after {wave.attempts} attempts, {wave.seconds:.1f} s")
    if len(wave.order) > 2:
        print(f"  order           {spearman(wave.order):.3f} rank correlation between coming and ending", end="")
        print(f", the {len(wave.order)} taken in at once")
    print(f"  HTTP process    {_mib(wave.before)} MiB before, {_mib(wave.peak)} peak, {_mib(wave.after)} after")
    print(f"  /health         {_spread(wave.health)}")


async def _wave(wave: Wave, client: Client, clip: bytes, numbers: Iterator[int], options: argparse.Namespace) -> None:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(base_url=client.url, timeout=options.patience, limits=limits) as http:
        started = time.perf_counter()
        uploads = [numbered(clip, next(numbers)) for _ in range(options.requests)]
        await asyncio.gather(*(_one(wave, http, place, upload, options) for place, upload in enumerate(uploads)))
        wave.seconds = time.perf_counter() - started


async def _one(wave: Wave, http: httpx.AsyncClient, place: int, upload: bytes, options: argparse.Namespace) -> None:
    """One client, until it has its text or an answer that it cannot mend."""
    await asyncio.sleep(place * options.apart / 1000)
    until = time.perf_counter() + options.patience
    outcome, wait = await _send(wave, http, upload)
    wave.first[outcome] += 1
    if outcome == "200":
        wave.order.append(place)
    while outcome == "429" and time.perf_counter() + wait < until:
        await asyncio.sleep(wait)
        outcome, wait = await _send(wave, http, upload)
    wave.last[outcome] += 1


async def _send(wave: Wave, http: httpx.AsyncClient, upload: bytes) -> tuple[str, float]:
    """The answer's status, or what broke; and how long to wait before the next attempt."""
    wave.attempts += 1
    try:
        response = await http.post(_URL, files={"file": ("clip.wav", upload)}, data={"language": "en"})
    except httpx.TransportError as error:
        return type(error).__name__, 0.0
    if response.status_code == 200 and not response.json()["text"].strip():
        return "200 without text", 0.0
    if response.status_code != 429:
        return str(response.status_code), 0.0
    after = response.headers.get("Retry-After", "")
    wave.retry_after.append(after)
    return "429", float(after) if after.isdigit() else 5.0


def watched(client: Client, work: Callable[[], None]) -> tuple[list[float], int]:
    """Do ``work`` while another process looks on: the times of ``/health``, and the HTTP process's most memory."""
    ours, theirs = multiprocessing.Pipe()
    watcher = multiprocessing.get_context("spawn").Process(target=_watch, args=(client.url, client.pid, theirs))
    watcher.start()
    ours.recv()  # it has begun
    try:
        work()
    finally:
        ours.send(None)
        times, peak = ours.recv()
        watcher.join()
    return times, peak


def _watch(url: str, pid: int, pipe: Connection) -> None:
    server, times, peak = psutil.Process(pid), list[float](), 0
    with httpx.Client(base_url=url, timeout=60) as http:
        http.get("/health")
        pipe.send(None)
        while not pipe.poll(_LOOK_S):
            peak = max(peak, server.memory_info().rss)
            started = time.perf_counter()
            http.get("/health").raise_for_status()
            times.append(time.perf_counter() - started)
            peak = max(peak, server.memory_info().rss)
    pipe.send((times, peak))


def spearman(order: list[int]) -> float:
    """Rank correlation between the places in ``order`` and their own order."""
    ranks = np.argsort(np.argsort(order))
    return float(np.corrcoef(ranks, np.arange(len(order)))[0, 1])


def _memory(client: Client) -> int:
    return int(psutil.Process(client.pid).memory_info().rss)


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f}"


def _spread(times: list[float]) -> str:
    middle, most = np.percentile(times, [50, 99])
    return f"{1000 * middle:.1f} ms p50, {1000 * most:.1f} p99, {1000 * max(times):.1f} max of {len(times)}"


def _counts(outcomes: Counter[str]) -> str:
    return ", ".join(f"{count} x {name}" for name, count in sorted(outcomes.items())) or "none"


if __name__ == "__main__":
    main()
