"""Mixed load for minutes, with faults every few seconds: is each request answered and counted, and does nothing grow?

Recordings of 60 lengths in all formats, streams, jobs on disk, views of the queue; a tenth hangs up, a twentieth sends
a broken file, others ask wrongly, slowly or for too much. Decoders are killed or stopped for a second, and the worker
is killed, though so seldom that the breaker stays shut. Ends with 1 where a goal is missed.

    python -m benchmarks.soak                          30 minutes on the scripted backend
    python -m benchmarks.soak --minutes 2 --backend faster-whisper --model micro
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import numpy as np
import psutil
from tqdm import tqdm

from benchmarks.chaos_clients import UNFINISHED
from benchmarks.recordings import RATE, as_wav, joined, numbered, samples
from benchmarks.server import Server, figures, machine
from benchmarks.verdicts import Verdicts, add_json
from tests.conftest import clips

_URL = "/v1/audio/transcriptions"
_CALLERS, _LENGTHS = 8, 60
_UPLOAD_MB = 3
#: Three deaths of a worker within a minute open the breaker.
_WORKER_KILL_S, _FAULT_S = 35, 4
#: Share of the time that counts as warm-up; RSS that 1,000 requests may add after it, in MB.
_WARM, _SLOPE_MB = 0.2, 0.5
_A_THOUSAND = "MB per 1,000 requests"
#: Seconds that what was started may take to be gone once nobody asks: idle threads and connections among it.
_SETTLE_S = 40
#: Answers with a 5xx that are promised: a recording whose worker died twice.
_EXPLAINED = {"500 worker_died", "200 worker_died in a stream"}
_KEPT = {"jobs.sqlite3", "jobs.sqlite3-wal", "jobs.sqlite3-shm", "lock"}
_HTTP = re.compile(r'whisperd_http_requests_total\{route="([^"]*)",status="(\d+)"\}')
_CODE = re.compile(r'"code": ?"(\w+)"')


class Load:
    """The clients, and the account of what they asked and heard."""

    def __init__(self, server: Server, dice: random.Random, sound: np.ndarray) -> None:
        self.server, self.dice = server, dice
        self.http = httpx.AsyncClient(base_url=server.url, timeout=120, limits=httpx.Limits(max_connections=None))
        self._sounds = [as_wav(sound[: int((0.4 + length) * RATE)]) for length in range(_LENGTHS)]
        self._numbers = itertools.count(1)
        #: By "status code"; by (route, status); requests that were not waited for, by route; faults.
        self.answers, self.heard = Counter[str](), Counter[tuple[str, str]]()
        self.left, self.faults = Counter[str](), Counter[str]()

    @property
    def asked(self) -> int:
        return self.heard.total() + self.left.total()

    async def one(self) -> None:
        kinds: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (50, self.plain), (10, self.hang_up), (5, self.bad_file), (6, self.job), (5, self.slow),
            (4, self.wrong), (3, self.too_large), (17, self.look),
        ]  # fmt: skip
        (kind,) = self.dice.choices([kind for _, kind in kinds], [weight for weight, _ in kinds])
        await kind()

    def note(self, route: str, response: httpx.Response) -> None:
        found = _CODE.search(response.text) if "error" in response.text[-2000:] else None
        streamed = " in a stream" if found and response.status_code == 200 else ""
        self.answers[f"{response.status_code} {found[1] if found else ''}{streamed}".strip()] += 1
        self.heard[route, str(response.status_code)] += 1

    def upload(self) -> bytes:
        return numbered(self.dice.choice(self._sounds), next(self._numbers))

    async def post(self, upload: bytes, headers: dict[str, str] | None = None, **fields: str) -> httpx.Response:
        response = await self.http.post(_URL, files={"file": ("a.wav", upload)}, data=fields, headers=headers)
        self.note(_URL, response)
        return response

    async def plain(self) -> None:
        form = self.dice.choice(["json", "text", "srt", "verbose_json", "vtt"])
        await self.post(self.upload(), response_format=form, stream=self.dice.choice(["true", "false"]))

    async def bad_file(self) -> None:
        await self.post(self.dice.choice([self.dice.randbytes(3000), self.upload()[:60], b"", b"fLaC" + bytes(500)]))

    async def wrong(self) -> None:
        await self.post(self.upload(), **self.dice.choice([{"model": "nobody"}, {"response_format": "pdf"}]))
        self.note("-", await self.http.get("/nothing"))
        self.note(_URL, await self.http.delete(_URL))

    async def look(self) -> None:
        for path in ("/health", "/v1/queue", "/v1/models", "/metrics"):
            self.note(path, await self.http.get(path))

    async def job(self) -> None:
        accepted = await self.post(self.upload(), {"Prefer": "respond-async"})
        if accepted.status_code != 202:
            return
        path, route = f"/v1/jobs/{accepted.json()['id']}", "/v1/jobs/{job_id}"
        while True:
            state = await self.http.get(path)
            self.note(route, state)
            if state.json()["status"] not in UNFINISHED:
                break
            await asyncio.sleep(0.1)
        self.note(f"{route}/result", await self.http.get(f"{path}/result"))
        self.note(route, await self.http.delete(path))

    async def slow(self) -> None:
        request = self.http.build_request("POST", _URL, files={"file": ("a.wav", self.upload())})
        await self._raw(request.read(), request.headers["Content-Type"], wait=None, pieces=8)

    async def hang_up(self) -> None:
        request = self.http.build_request("POST", _URL, files={"file": ("a.wav", self.upload())})
        body = request.read()
        await self._raw(body, request.headers["Content-Type"], wait=self.dice.uniform(0, 0.4), share=self.dice.random())

    async def too_large(self) -> None:
        await self._raw(b"", "audio/wav", wait=None, length=100 * 2**20)

    async def _raw(
        self, body: bytes, kind: str, *, wait: float | None, pieces: int = 1, share: float = 1, length: int = 0
    ) -> None:
        """Send on a connection of its own, ``body`` in pieces; listen, or hang up after ``wait`` seconds."""
        port = httpx.URL(self.server.url).port
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.suppress(ConnectionError):
            head = f"POST {_URL} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\nContent-Type: {kind}\r\n"
            writer.write(f"{head}Content-Length: {length or len(body)}\r\n\r\n".encode())
            if share > 0.5:
                share = 1  # half of all hang up while they wait, the others while they send
            body = body[: int(share * len(body))]
            size = max(1, -(-len(body) // pieces))
            for start in range(0, len(body), size):
                writer.write(body[start : start + size])
                await writer.drain()
                await asyncio.sleep(0.05 if pieces > 1 else 0)
            if wait is not None:
                await asyncio.sleep(wait)
        if wait is not None:
            self.left[_URL] += 1
        else:
            head, _, text = (await reader.read()).partition(b"\r\n\r\n")
            self.note(_URL, httpx.Response(int(head.split()[1]) if head else 599, content=text))
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--backend", default="fake")
    parser.add_argument("--model", default='{"seconds_per_step": 0.01}', help="the script of fake, or a model's name")
    parser.add_argument("--seed", type=int, default=0)
    add_json(parser)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        joined([clip.path for clip in clips("en")], Path(name) / "long.wav", _LENGTHS + 10)
        sound = samples(Path(name) / "long.wav")
        flags = ("--backend", options.backend, "--model", options.model, "--max-upload-mb", str(_UPLOAD_MB))
        server = Server(Path(name) / "state", *flags, log=Path(name) / "log")
        try:
            server.start()
            load = Load(server, random.Random(options.seed), sound)  # noqa: S311
            found, wrong = asyncio.run(soak(load, options.minutes * 60))
        finally:
            server.stop()
        left = sorted(each.name for each in server.state.rglob("*") if each.is_file() and each.name not in _KEPT)
        wrong += [f"left in the state folder: {left}"] if left else []
    print(machine())
    print(f"{options.backend}, {options.minutes:g} minutes, seed {options.seed}, {load.asked} requests")
    for answer, count in sorted(load.answers.items()):
        print(f"  {count:8} x {answer}")
    print(f"  {load.left.total():8} x hung up; faults: {dict(load.faults)}")
    for name, value in found.items():
        print(f"  {name}: {value}")
    for each in wrong:
        print(f"  WRONG: {each}")
    account = {**found, "requests": load.asked, "hung up": load.left.total(), "faults": dict(load.faults)}
    sys.exit(judged(account, wrong).end(options.json))


def judged(account: dict[str, object], wrong: list[str]) -> Verdicts:
    """The figures for the table, from those of ``soak``."""
    verdicts = Verdicts()
    counted = "{requests:,} requests, {hung up:,} of them hung up; faults {faults}".format(**account)
    verdicts.say(16, "all answered and counted", "; ".join([counted, *wrong]), holds=not wrong)
    slope = account[_A_THOUSAND]
    verdicts.say(16, "resident memory", f"{slope} {_A_THOUSAND}", holds=float(str(slope)) <= _SLOPE_MB)
    what = "descriptors, threads, children, spooled files"
    verdicts.say(16, what, f"{account['before']} before, {account['after']} after", holds=not wrong)
    return verdicts


async def soak(load: Load, seconds: float) -> tuple[dict[str, object], list[str]]:
    process = psutil.Process(load.server.pid)
    async with load.http:
        await asyncio.gather(*(load.one() for _ in range(4 * _CALLERS)))
        base = await settled(load, None)
        began, points = time.monotonic(), list[tuple[float, int, float]]()

        async def caller() -> None:
            while time.monotonic() < began + seconds:
                await load.one()

        breaking = asyncio.create_task(break_things(load))
        calling = [asyncio.create_task(caller()) for _ in range(_CALLERS)]
        with tqdm(total=int(seconds), unit="s") as bar:
            while time.monotonic() < began + seconds:
                await asyncio.sleep(1)
                points.append((time.monotonic() - began, load.asked, process.memory_info().rss / 1e6))
                bar.update(int(points[-1][0]) - bar.n)
        breaking.cancel()
        await asyncio.gather(*calling)
        end = await settled(load, base)
    warm = np.array([each for each in points if each[0] > _WARM * seconds])
    a_thousand = 1000 * float(np.polyfit(warm[:, 1], warm[:, 2], 1)[0])
    found: dict[str, object] = {
        _A_THOUSAND: round(a_thousand, 3),
        "RSS, MB an hour": round(3600 * float(np.polyfit(warm[:, 0], warm[:, 2], 1)[0]), 2),
        "RSS, MB": [round(points[0][2], 1), round(points[-1][2], 1)],
        "before": base,
        "after": end,
    }
    wrong = [f"{a_thousand:.2f} MB per 1,000 requests"] if a_thousand > _SLOPE_MB else []
    wrong += [f"{name} was {base[name]}, is {end[name]}" for name in base if base[name] < end[name]]
    bad = [each for each in load.answers if each not in _EXPLAINED and (each[0] == "5" or "stream" in each)]
    wrong += [f"unexplained: {load.answers[each]} x {each}" for each in bad]
    return found, wrong + accounted(load, await asyncio.to_thread(figures, load.server.url))


def accounted(load: Load, found: dict[str, float]) -> list[str]:
    """What of the clients' count is not in the server's, or the reverse. ``found`` does not count its own request."""
    counted = Counter({(each[1], each[2]): int(n) for name, n in found.items() if (each := _HTTP.fullmatch(name))})
    del counted["/ready", "200"], counted["/ready", "503"]  # the start asked
    wrong, over = [], Counter[str]()
    for route, status in counted.keys() | load.heard.keys():
        more = counted[route, status] - load.heard[route, status]
        over[route] += more
        if more < 0 or (more and not load.left[route]):
            wrong.append(f"{route} {status}: {load.heard[route, status]} heard, {counted[route, status]} counted")
    wrong += [
        f"{route}: {over[route]} more, {load.left[route]} hung up" for route in over if over[route] != load.left[route]
    ]
    posts = sum(n for (route, status), n in counted.items() if route == _URL and status != "405")
    ends = sum(n for name, n in found.items() if name.startswith(("whisperd_jobs_total", "whisperd_jobs_joined_total")))
    return wrong + ([f"{posts} uploads, {ends:.0f} ends of jobs"] if posts != ends else [])


async def settled(load: Load, wanted: dict[str, int] | None) -> dict[str, int]:
    """Descriptors, threads, children and spooled files once nothing is done and waits until none
    is more than ``wanted``: idle threads of the pool end by themselves."""
    process, until = psutil.Process(load.server.pid), time.monotonic() + (_SETTLE_S if wanted else 6)
    while True:
        await asyncio.sleep(1)
        now = {
            "descriptors": process.num_fds() - len([each for each in process.net_connections() if each.raddr]),
            "threads": process.num_threads(),
            "children": len(load.server.children()),
            "spooled": len(list(load.server.state.glob("spool/server-*/job-*"))),
        }
        if (wanted and all(now[each] <= wanted[each] for each in now)) or time.monotonic() > until:
            return now


async def break_things(load: Load) -> None:
    """A fault every few seconds, until cancelled."""
    killed = time.monotonic()
    while True:
        await asyncio.sleep(load.dice.uniform(0.5, 1.5) * _FAULT_S)
        worker = time.monotonic() > killed + _WORKER_KILL_S
        victims = load.server.children("app.worker.child" if worker else "app.worker.decoder")
        if not victims:
            continue
        with contextlib.suppress(psutil.Error):
            if worker:
                killed = time.monotonic()
                victims[0].kill()
            elif load.dice.random() < 0.5:
                victims[0].kill()
            else:
                victims[0].send_signal(signal.SIGSTOP)
                try:
                    await asyncio.sleep(1)
                finally:
                    victims[0].send_signal(signal.SIGCONT)
                load.faults["decoder stopped"] += 1
                continue
            load.faults["worker killed" if worker else "decoder killed"] += 1


if __name__ == "__main__":
    main()
