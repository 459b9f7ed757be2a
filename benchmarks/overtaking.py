"""What a dictation waits for while a long file is transcribed, and what the file pays for that.

A short clip is sent every so many times its own idle time. Two bounds are looked at: the clip's p95 is at most its idle
time and one step of the file; the file takes at most 1.10 times its own time at one window a step and the clips' device
time. Two servers, one with one window a step and one as it comes, have their rounds in turn; within a round the clip
alone, the file alone and the two together, the latter two in alternating order.

    python -m benchmarks.overtaking                                    ten minutes of joined clips, 2 s clip, micro
    python -m benchmarks.overtaking --model DIR --audio F --clip F     your model and recordings
"""

from __future__ import annotations

import argparse
import functools
import itertools
import re
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
from tqdm import tqdm

from benchmarks.recordings import RATE, as_wav, joined, numbered, samples
from benchmarks.server import Client, figures, machine, parser_of, serving
from tests.conftest import clips

#: More clips than this are never under way at once.
_MOST_AT_ONCE = 64
_BUCKET = re.compile(r'whisperd_step_seconds_bucket\{le="([^"]+)"\}')
_SIDES = {"1": ("--max-batch", "1"), "default": ()}


@dataclass
class Side:
    """A server, and what was measured on it; seconds throughout."""

    client: Client
    idle: list[float] = field(default_factory=list)
    alone: list[float] = field(default_factory=list)
    mixed: list[float] = field(default_factory=list)
    #: Of each clip sent beside the file: its time, and what of it was waiting for the device.
    clips: list[float] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)
    #: Of each round with clips: how many ended before the file did, and their device time.
    ended: list[int] = field(default_factory=list)
    device: list[float] = field(default_factory=list)
    #: Of the file alone: its steps, their time in all, and how many of them were under each of the histogram's bounds.
    steps: int = 0
    step_s: float = 0.0
    below: Counter[float] = field(default_factory=Counter)

    @property
    def long_step_s(self) -> float:
        """The 95th percentile of the file's steps, as Prometheus reckons it: evenly spread inside a bucket."""
        wanted, bound, under = 0.95 * self.steps, 0.0, 0
        for each, count in sorted(self.below.items()):
            if count >= wanted:
                return bound + (each - bound) * (wanted - under) / (count - under)
            bound, under = each, count
        return bound


class Measure:
    """The two recordings, and how they are sent."""

    def __init__(self, file: Path, clip: bytes, options: argparse.Namespace) -> None:
        self.file, self._clip, self._options = file, clip, options
        self._numbers: Iterator[int] = itertools.count()

    def idle(self, side: Side, count: int) -> None:
        for _ in range(count):
            time.sleep(self._options.pause)
            side.idle.append(self._send_clip(side.client, time.perf_counter())[0])

    def alone(self, side: Side) -> None:
        time.sleep(self._options.pause)
        before = figures(side.client.url)
        side.alone.append(self._send_file(side.client))
        after = figures(side.client.url)
        steps = int(_grown(before, after, "whisperd_step_seconds_count"))
        side.steps += steps
        side.step_s += _grown(before, after, "whisperd_step_seconds_sum")
        bounds = {name: float(found[1]) for name in after if (found := re.fullmatch(_BUCKET, name))}
        side.below.update({bound: int(_grown(before, after, name)) for name, bound in bounds.items()})

    def mixed(self, side: Side, interval: float) -> None:
        time.sleep(self._options.pause)
        with ThreadPoolExecutor(_MOST_AT_ONCE) as pool:
            due = time.perf_counter() + interval
            file = pool.submit(self._send_file, side.client)
            sent: list[Future[tuple[float, httpx.Response]]] = []
            while not wait([file], max(0.0, due - time.perf_counter())).done:
                sent.append(pool.submit(self._send_clip, side.client, due))
                due += interval
            ended = [each.result()[1] for each in sent if each.done()]
        side.mixed.append(file.result())
        side.clips += [each.result()[0] for each in sent]
        side.waited += [_part(each.result()[1], "queue") for each in sent]
        side.ended.append(len(ended))
        side.device.append(sum(_part(response, "inference") for response in ended))

    def _send_file(self, client: Client) -> float:
        started = time.perf_counter()
        client.transcribe(self.file, language=self._options.language)
        return time.perf_counter() - started

    def _send_clip(self, client: Client, due: float) -> tuple[float, httpx.Response]:
        clip = numbered(self._clip, next(self._numbers))
        response = client.transcribe(clip, language=self._options.language)
        return time.perf_counter() - due, response


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--audio", type=Path, nargs="+", help="recordings joined to the file (default: test clips)")
    parser.add_argument("--minutes", type=float, default=10, help="length of the file")
    parser.add_argument("--clip", type=Path, help="recording that the clip is the beginning of (default: a test clip)")
    parser.add_argument("--clip-seconds", type=float, default=2)
    parser.add_argument("--every", type=float, default=5, help="the clip's idle times between two clips")
    parser.add_argument("--language", default="en")
    parser.add_argument("--idle-clips", type=int, default=10, help="clips alone, in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pause", type=float, default=0.3, help="seconds of rest between, for spinning threads")
    options = parser.parse_args()

    flags = ("--backend", options.backend, "--model", options.model)
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(*flags, *_SIDES["1"]) as single,
        serving(*flags, *_SIDES["default"]) as usual,
    ):
        file = Path(folder) / "file.wav"
        english = [each.path for each in clips("en")]
        minutes = joined(options.audio or english, file, 60 * options.minutes) / 60
        clip = samples(options.clip or english[0])[: int(options.clip_seconds * RATE)]
        measure = Measure(file, as_wav(clip), options)
        sides = dict(zip(_SIDES, (Side(single), Side(usual)), strict=True))
        run(measure, sides, options)
    print(machine())
    print(f"{options.backend}, {options.model}: {len(clip) / RATE:.1f} s clip every {options.every:g} ", end="")
    print(f"idle times beside a file of {minutes:.1f} min, {options.rounds} rounds")
    for name, side in sides.items():
        report(name, side, statistics.median(sides["1"].alone))


def run(measure: Measure, sides: dict[str, Side], options: argparse.Namespace) -> None:
    with tqdm(total=len(sides) * (2 * options.rounds + 1)) as progress:
        for side in sides.values():  # warms every cache on the way, and says roughly how fast it is
            side.client.transcribe(measure.file, language=options.language)
            measure.idle(side, 3)
            side.idle.clear()
            progress.update()
        for round_ in range(options.rounds):
            for side in sides.values():
                measure.idle(side, options.idle_clips)
                interval = options.every * statistics.median(side.idle)
                kinds = [functools.partial(measure.alone, side), functools.partial(measure.mixed, side, interval)]
                for kind in kinds[:: -1 if round_ % 2 else 1]:
                    kind()
                    progress.update()


def report(name: str, side: Side, single: float) -> None:
    """``single`` is the file's own time at one window a step."""
    print(f"max-batch {name}")
    if not side.clips:
        print("  the file was over before the first clip was due: take a longer one")
        return
    idle, alone, mixed = (statistics.median(times) for times in (side.idle, side.alone, side.mixed))
    device, step = statistics.median(side.device), side.step_s / side.steps
    middle, most = np.percentile(side.clips, [50, 95])
    bound = single + device
    print(f"  clip alone      {1000 * idle:8.0f} ms, median of {len(side.idle)}")
    print(f"  clip with file  {1000 * middle:8.0f} ms p50, {1000 * most:.0f} p95, ", end="")
    print(f"{1000 * max(side.clips):.0f} max of {len(side.clips)}; ", end="")
    print(f"waited for the device {1000 * np.percentile(side.waited, 95):.0f} ms p95")
    print(f"  file alone      {alone:8.2f} s; a step {1000 * step:.0f} ms (mean of {side.steps}), ", end="")
    print(f"{1000 * side.long_step_s:.0f} p95")
    print(f"  file with clips {mixed:8.2f} s; clips' device time {device:.2f} s, ", end="")
    print(f"{statistics.median(side.ended):g} clips a round")
    for kind, long in (("mean", step), ("p95", side.long_step_s)):
        print(f"  clip's p95 <= idle + one step ({kind}): {1000 * most:.0f} <= {1000 * (idle + long):.0f} ms, ", end="")
        print(_verdict(most <= idle + long))
    print(f"  file <= 1.10 x (own time at one window a step + clips' device time): {mixed:.2f} <= ", end="")
    print(f"1.10 x {bound:.2f} = {1.1 * bound:.2f} s ({mixed / bound:.2f}), {_verdict(mixed <= 1.1 * bound)}")


def _verdict(holds: bool) -> str:
    return "holds" if holds else "DOES NOT HOLD"


def _grown(before: dict[str, float], after: dict[str, float], name: str) -> float:
    return after[name] - before.get(name, 0.0)


def _part(response: httpx.Response, name: str) -> float:
    """Seconds of a part in the header ``Server-Timing``."""
    found = re.search(rf"{name};dur=([0-9.]+)", response.headers["Server-Timing"])
    assert found is not None
    return float(found[1]) / 1000


if __name__ == "__main__":
    main()
