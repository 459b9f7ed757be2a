"""Which threads call MLX, while many ask at once, some hang up, and the model comes and goes.

    python -m benchmarks.mlx_thread                    300 requests of 16 clients; row 14 of docs/reliability.md

MLX binds its streams to threads: a call from another one fails. A wrapper around each function of ``mlx.core`` in the
worker notes the thread that it is called on.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path

import httpx
from tqdm import tqdm

from benchmarks.recordings import as_wav, numbered, samples
from benchmarks.server import Server, machine
from benchmarks.verdicts import Verdicts, add_json
from tests.conftest import clips

_URL = "/v1/audio/transcriptions"
#: Python runs it at the start of every process that finds it.
_WRAPPER = """
import builtins, os, sys, threading
plain, seen = builtins.__import__, set()

def wrapped(name, function):
    def call(*args, **words):
        if (thread := threading.get_ident()) not in seen:
            seen.add(thread)
            with open({path!r}, "a") as file:
                print(os.getpid(), thread, thread == threading.main_thread().ident, file=file)
        return function(*args, **words)
    return call

def importing(*args, **words):
    module = plain(*args, **words)
    core = sys.modules.get("mlx.core")
    if core is not None and hasattr(core, "eval") and not hasattr(core, "whisperd_wrapped"):
        core.whisperd_wrapped = True
        for name, function in list(vars(core).items()):
            if type(function).__name__ == "nb_func":
                setattr(core, name, wrapped(name, function))
    return module

builtins.__import__ = importing
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--clients", type=int, default=16)
    add_json(parser)
    options = parser.parse_args()
    found = Verdicts()
    print(machine())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "sitecustomize.py").write_text(_WRAPPER.format(path=str(folder / "threads")))
        os.environ["PYTHONPATH"] = os.pathsep.join([name, *filter(None, [os.environ.get("PYTHONPATH")])])
        server = Server(folder / "state", "--backend", "mlx-whisper", "--model", "micro", "--keep-alive", "1")
        try:
            server.start()
            outcomes = asyncio.run(_mixed(server.url, options.requests, options.clients))
        finally:
            server.stop()
        calls = [line.split() for line in (folder / "threads").read_text().splitlines()]
    workers = {pid for pid, *_ in calls}
    others = sum(main != "True" for *_, main in calls)
    figure = (
        f"{dict(outcomes)}, {len(workers)} loads, {len(calls)} threads called MLX, {others} of them not a main thread"
    )
    fine = outcomes.keys() <= {"200", "hung up"} and len(calls) == len(workers) > 1 and not others
    found.say(14, f"{options.requests} requests of {options.clients} clients", figure, holds=fine)
    return found.end(options.json)


async def _mixed(url: str, requests: int, clients: int) -> Counter[str]:
    dice, numbers, outcomes = random.Random(0), itertools.count(1), Counter[str]()  # noqa: S311
    wav = as_wav(samples(clips("en")[0].path))
    with tqdm(total=requests) as bar:
        async with httpx.AsyncClient(base_url=url, timeout=120) as http:

            async def one() -> None:
                post = http.post(_URL, files={"file": numbered(wav, next(numbers))})
                try:
                    answer = await asyncio.wait_for(post, dice.uniform(0.1, 1) if dice.random() < 0.15 else None)
                    outcomes[str(answer.status_code)] += 1
                except TimeoutError:
                    outcomes["hung up"] += 1
                bar.update()

            async def client(count: int) -> None:
                for _ in range(count):
                    await one()

            # In four rounds, between which the model is unloaded.
            for _ in range(4):
                await asyncio.gather(*(client(-(-requests // clients // 4)) for _ in range(clients)))
                await asyncio.sleep(3)
    return outcomes


if __name__ == "__main__":
    sys.exit(main())
