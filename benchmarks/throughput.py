"""Audio done a second by 1, 4 and 16 callers at once, against the same library called alone, back to back.

The library, in a process of its own, runs the same weights greedily with the same threads and finds the speech itself.
Each side does the same recordings, each once, while the other idles; rounds are interleaved and their order turns.
Reports medians, the ratios within a round, and how the texts compare.

    python -m benchmarks.throughput                             16 recordings of up to 30 s of joined clips, micro
    python -m benchmarks.throughput --model DIR --audio F...    your CTranslate2 model, recordings joined of yours
"""

from __future__ import annotations

import argparse
import functools
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from benchmarks.library import Library, folder_of
from benchmarks.recordings import joined
from benchmarks.server import Client, machine, serving, turned
from tests.conftest import clips, word_error_rate

#: What is promised: the server does at least so much of what the library does alone.
_LEAST = 0.95
#: Seconds that a side took, and its texts in the order of the recordings.
Done = tuple[float, list[str]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="micro", help="micro, or a folder in CTranslate2 or Hugging Face format")
    parser.add_argument("--audio", type=Path, nargs="+", help="recordings to join (default: English test clips)")
    parser.add_argument("--seconds", type=float, default=30, help="length that a recording has at most")
    parser.add_argument("--recordings", type=int, default=16)
    parser.add_argument("--callers", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pause", type=float, default=0.5, help="seconds of rest between, for spinning threads")
    options = parser.parse_args()

    with (
        tempfile.TemporaryDirectory() as folder,
        serving("--backend", "faster-whisper", "--model", options.model) as client,
        Library("faster-whisper-vad", folder_of(options.model, "faster-whisper")) as library,
    ):
        paths = [Path(folder) / f"{number}.wav" for number in range(options.recordings)]
        files = options.audio or [each.path for each in clips("en")]
        audio = sum(joined(files, path, options.seconds, seed=seed) for seed, path in enumerate(paths))
        sides: dict[str, Callable[[], Done]] = {"library": lambda: alone(library, paths)}
        for callers in options.callers:
            sides[f"{callers} callers"] = functools.partial(work, client, paths, callers)
        texts = {name: side()[1] for name, side in tqdm(sides.items(), desc="warming up")}
        times: dict[str, list[float]] = {name: [] for name in sides}
        for round_ in tqdm(range(options.rounds)):
            for name in turned(list(sides), round_):
                time.sleep(options.pause)
                seconds, texts[name] = sides[name]()
                times[name].append(seconds)
    print(machine())
    print(f"faster-whisper, {options.model}: {options.recordings} recordings, {audio:.0f} s of audio", end="")
    print(f", {options.rounds} rounds, medians")
    for name, taken in times.items():
        print(f"  {name:10} {audio / statistics.median(taken):7.2f} s of audio a second", end="")
        print(compared(taken, times["library"], texts[name], texts["library"]) if name != "library" else "")


def compared(taken: list[float], library: list[float], texts: list[str], its_texts: list[str]) -> str:
    """A side against the library."""
    ratios = [theirs / ours for ours, theirs in zip(taken, library, strict=True)]
    ratio, errors = statistics.median(ratios), 100 * word_error_rate(its_texts, texts)
    verdict = "holds" if ratio >= _LEAST else "DOES NOT HOLD"
    return (
        f", {ratio:.3f} x the library ({min(ratios):.3f} to {max(ratios):.3f}), >= {_LEAST} {verdict}; "
        f"word errors against its texts {errors:.2f} %"
    )


def work(client: Client, paths: list[Path], callers: int) -> Done:
    """All recordings, each sent by the next caller that is free."""
    with ThreadPoolExecutor(callers) as pool:
        started = time.perf_counter()
        texts = list(pool.map(lambda path: client.transcribe(path, language="en").json()["text"], paths))
        return time.perf_counter() - started, texts


def alone(library: Library, paths: list[Path]) -> Done:
    """All recordings, one after the other; the seconds are those of the library's process."""
    answers = [library.transcribe(path, "en") for path in paths]
    return sum(answer.seconds for answer in answers), [answer.text for answer in answers]


if __name__ == "__main__":
    main()
