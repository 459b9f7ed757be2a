"""What is lost when clients hang up, workers are killed and servers are killed, at random moments: nothing may be.

* cancels: clients hang up while they send, wait or listen, amid others that do not. Afterwards the queue and the spool
  are empty, the device stands still, and ``/metrics`` adds up.
* kills: the worker is killed under load of requests and of jobs on disk, twice in a server's life. A third death within
  a minute opens the breaker, whose 503s the clients obey: ``--kills-a-life 3`` looks at that, at a minute each.
* restarts: the server is killed while jobs come in and are done, and started again on its state folder. Who hears no
  answer sends the same upload again: each upload must be one job in the end.

Every text is held against the one that the same recording gave alone. Ends with 1 where anything is wrong.

    python -m benchmarks.chaos                                            100 cancels, 50 kills, 20 restarts on micro
    python -m benchmarks.chaos --cancels 10 --kills 4 --restarts 3        a short one
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import re
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path

import httpx
import psutil
from tqdm import tqdm

from benchmarks.chaos_clients import RIGHT, UNFINISHED, Clients, Part, Sound, judged, settled
from benchmarks.recordings import joined
from benchmarks.server import Client, Server, machine, parser_of
from tests.conftest import clips

#: Lengths of the recordings at most, in seconds: dictations and what takes several steps.
_LENGTHS = (5, 5, 20, 40, 60, 90)
#: How many of each kind are under way at once.
_HANGING_UP, _STAYING = 4, 6
_OUTCOME = re.compile(r'whisperd_jobs_total\{outcome="(\w+)"\}')
#: Seconds in which all that is left at the end must be done.
_PATIENCE_S = 300
#: What may come of a recording whose worker was killed twice.
_DIED = ("500 worker_died", "worker_died in a stream")


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--cancels", type=int, default=100)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--kills-a-life", type=int, default=2, help="worker kills before a fresh server")
    parser.add_argument("--restarts", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    parts: list[Part] = []
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as ends:
        log = Path(folder) / "log"

        def server(name: str) -> Server:
            state = Path(folder) / name
            made = Server(state, "--backend", options.backend, "--model", options.model, log=log)
            ends.callback(made.kill)
            return made

        sounds = alone(server("alone"), Path(folder))
        works: dict[str, tuple[int, Callable[..., Coroutine[None, None, None]]]] = {
            "cancels": (options.cancels, cancels),
            "kills": (options.kills, functools.partial(kills, a_life=options.kills_a_life)),
            "restarts": (options.restarts, restarts),
        }
        for name, (count, work) in works.items():
            part = Part(name, count)
            with tqdm(total=count, desc=name) as progress:
                asyncio.run(work(part, server(name), sounds, random.Random(options.seed), count, progress))  # noqa: S311
            parts.append(part)
        bad = [line for line in log.read_text().splitlines() if "unexpected error" in line or "Traceback" in line]
    print(machine())
    print(f"{options.backend}, {options.model}, seed {options.seed}")
    print(f"  {'':9}{'tried':>7}{'texts wanted':>15}{'right':>8}{'otherwise':>12}{'lost':>7}")
    for part in parts:
        wanted, right, lost = part.outcomes.total(), part.outcomes[RIGHT], part.lost()
        print(f"  {part.name:9}{part.tried:7}{wanted:15}{right:8}{wanted - right - lost:12}{lost:7}")
    for part in parts:
        print(f"  {part.name}: {_counts(part.done)}; ended {_counts(part.outcomes)}")
        for each in part.wrong:
            print(f"    WRONG: {each}")
    if bad:
        print(f"    WRONG: the log has {len(bad)} unexpected errors, first {bad[0]}")
    sys.exit(bool(bad or any(part.wrong or part.lost() for part in parts)))


def _counts(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "nothing"


def alone(server: Server, folder: Path) -> list[Sound]:
    """The recordings, and what each gives when nothing else is done."""
    server.start()
    client, sounds = Client(server.url, server.pid), []
    for seed, seconds in enumerate(_LENGTHS):
        path = folder / f"{seed}.wav"
        joined([clip.path for clip in clips("en")], path, seconds, seed=seed)
        sounds.append(Sound(path.read_bytes(), client.transcribe(path, language="en").json()["text"]))
    server.stop()
    return sounds


async def cancels(
    part: Part, server: Server, sounds: list[Sound], dice: random.Random, count: int, progress: tqdm
) -> None:
    """``count`` clients hang up; as long as they do, others wait for their texts."""
    await asyncio.to_thread(server.start)
    started = 0
    took = [1.0]

    async def hang_up(clients: Clients) -> None:
        nonlocal started
        while started < count:
            started += 1
            sound, upload = clients.upload(shared=0.2)
            try:
                async with asyncio.timeout(dice.uniform(0, 1.2 * statistics.median(took[-20:]))):
                    part.outcomes[await clients.send(sound, upload)] += 1
            except TimeoutError:
                part.done["hung up"] += 1
                progress.update()
            else:
                started -= 1  # was answered before

    async def stay(clients: Clients) -> None:
        while part.done["hung up"] < count:
            began = time.perf_counter()
            sound, upload = clients.upload(shared=0.2)
            part.outcomes[await clients.send(sound, upload)] += 1
            took.append(time.perf_counter() - began)

    async with Clients(server.url, sounds, dice, part) as clients:
        await asyncio.gather(*(hang_up(clients) for _ in range(_HANGING_UP)), *(stay(clients) for _ in range(_STAYING)))
        found = await settled(server, part)
    ended = {each[1]: int(value) for name, value in found.items() if (each := _OUTCOME.fullmatch(name))}
    met = int(sum(value for name, value in found.items() if name.startswith("whisperd_jobs_joined_total")))
    sent, answered = part.outcomes.total() + part.done["hung up"], part.outcomes[RIGHT]
    part.done |= Counter({f"jobs counted {name}": value for name, value in ended.items()})
    part.done |= Counter({"requests that met a job": met, "not counted": sent - sum(ended.values()) - met})
    part.check(ended.keys() <= {"ok", "cancelled", "upload_left"}, f"jobs ended otherwise: {ended}")
    part.check(ended.get("ok", 0) + met >= answered, f"{answered} were answered, {ended} and {met} met are counted")
    part.check(sum(ended.values()) + met <= sent, f"{sent} were sent, {ended} and {met} met are counted")
    server.stop()


async def kills(
    part: Part, server: Server, sounds: list[Sound], dice: random.Random, count: int, progress: tqdm, *, a_life: int
) -> None:
    """The worker is killed ``count`` times, ``a_life`` times before the server is started afresh."""
    part.expected = _DIED
    while part.done["killed"] < count:
        await asyncio.to_thread(server.start)
        part.done["lives"] += 1
        over = asyncio.Event()

        async def stay(clients: Clients, *, job: bool, over: asyncio.Event = over) -> None:
            while not over.is_set():
                part.outcomes[await (clients.send_job if job else clients.send)(*clients.upload())] += 1

        async with Clients(server.url, sounds, dice, part) as clients:
            staying = [asyncio.create_task(stay(clients, job=number % 3 == 2)) for number in range(6)]
            killed: set[int] = set()
            while len(killed) < a_life and part.done["killed"] < count:
                await asyncio.sleep(dice.uniform(0, 1.5))
                killed.add(await _kill_worker(server, killed))
                part.done["killed"] += 1
                progress.update()
            over.set()
            await asyncio.gather(*staying)
            found = await settled(server, part)
        part.done["deaths counted"] += int(found.get('whisperd_worker_restarts_total{role="worker"}', 0))
        server.stop()


async def _kill_worker(server: Server, killed: set[int]) -> int:
    """Kill the worker as soon as there is one that was not killed before; returns its pid."""
    while True:
        for child in server.children("app.worker.child"):
            if child.pid not in killed:
                child.kill()
                return int(child.pid)
        await asyncio.sleep(0.01)


async def restarts(
    part: Part, server: Server, sounds: list[Sound], dice: random.Random, count: int, progress: tqdm
) -> None:
    """The server is killed ``count`` times while it takes and does jobs, and once more does what is left."""
    uploads: list[tuple[Sound, bytes]] = []
    ids: dict[int, str] = {}
    children: list[psutil.Process] = []

    async def post(clients: Clients, number: int, delay: float) -> None:
        await asyncio.sleep(delay)
        while number not in ids:
            try:
                ids[number] = await clients.post_job(uploads[number][1])
            except httpx.ConnectError:  # not there yet
                await asyncio.sleep(0.05)
            except httpx.TransportError:
                part.done["unheard"] += 1
                return
            except httpx.HTTPStatusError as error:
                part.done[f"refused with {error.response.status_code}"] += 1
                return

    async with Clients(server.url, sounds, dice, part) as clients:
        for _ in range(count):
            uploads += [clients.upload() for _ in range(dice.randint(2, 5))]
            server.start(ready=False)
            life = dice.uniform(0.2, 4)
            delays = {number: dice.uniform(0, life) for number in range(len(uploads)) if number not in ids}
            delays[len(uploads) - 1] = max(0, life - dice.uniform(0, 0.05))  # comes as the server goes
            posting = [asyncio.create_task(post(clients, *each)) for each in delays.items()]
            await asyncio.sleep(life)
            children += server.children()
            server.kill()
            await asyncio.sleep(0.05)  # for clients to see their connections end
            part.done["killed"] += 1
            progress.update()
            for each in posting:
                each.cancel()
            await asyncio.gather(*posting, return_exceptions=True)
        part.done["uploads"], part.done["accepted before the last life"] = len(uploads), len(ids)
        await asyncio.to_thread(server.start)
        await asyncio.gather(*(post(clients, number, 0) for number in range(len(uploads))))
        await _finished(part, clients, uploads, ids)
        await settled(server, part)
    children += server.children()
    server.stop()
    await asyncio.to_thread(psutil.wait_procs, children, 10)
    alive = [each for each in children if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]
    part.check(not alive, f"{len(alive)} children of killed servers live on")
    left = sorted(str(path.relative_to(server.state)) for path in server.state.rglob("*"))
    kept = {"jobs", "jobs/jobs.sqlite3", "jobs/jobs.sqlite3-wal", "jobs/jobs.sqlite3-shm", "jobs/lock", "spool"}
    part.check(set(left) <= kept, f"left in the state folder: {sorted(set(left) - kept)}")


async def _finished(part: Part, clients: Clients, uploads: list[tuple[Sound, bytes]], ids: dict[int, str]) -> None:
    """Wait for all jobs, and judge each upload's text."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_PATIENCE_S):
            while True:
                jobs = (await clients.http.get("/v1/jobs", params={"limit": 1000})).json()["data"]
                if all(job["status"] not in UNFINISHED for job in jobs):
                    break
                await asyncio.sleep(0.5)
    for number, (sound, _) in enumerate(uploads):
        outcome = judged(await clients.http.get(f"/v1/jobs/{ids[number]}/result"), sound) if number in ids else "lost"
        part.outcomes[outcome] += 1
    listed = Counter(job["id"] for job in jobs)
    part.check(listed == Counter(ids.values()), f"{len(uploads)} uploads, {listed.total()} jobs listed")


if __name__ == "__main__":
    main()
