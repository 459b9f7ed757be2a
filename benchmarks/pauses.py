"""What silence costs: the same speech with hardly a pause, and spread over six times its length.

    python -m benchmarks.pauses                                                 micro, two minutes of speech
    python -m benchmarks.pauses --model DIR --manifest M.json --minutes 10      your CTranslate2 model, an hour

The pauses are room noise, from half a second to about twice their mean, by chance. The server's answers over HTTP
against the library alone, with and without its own detection of speech, each on both recordings, interleaved; medians.
"""

from __future__ import annotations

import random
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks import corpus
from benchmarks.errors import word_error_rate
from benchmarks.library import Library, folder_of
from benchmarks.recordings import RATE, as_wav, numbered, samples
from benchmarks.server import machine, parser_of, serving, turned
from benchmarks.sides import Alone, Over, Side
from tests.conftest import Clip

#: Level of the noise in the pauses, of 32,768: a quiet room.
_ROOM = 8
#: Seconds of the shortest pause, and of all in the dense recording.
_SHORTEST = 0.5


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--manifest", type=Path, default=corpus.MANIFEST, help="clips to use (default: the test clips)")
    parser.add_argument("--minutes", type=float, default=2, help="minutes of speech")
    parser.add_argument("--spread", type=float, default=6, help="how many times as long it is with pauses")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--flag", dest="flags", action="append", default=[], help="for `whisperd serve`: --flag=--x=y")
    options = parser.parse_args()
    if options.backend != "faster-whisper":
        parser.error("only faster-whisper is compared")
    folder = folder_of(options.model, options.backend)
    clips = list(_spoken([clip for clip in corpus.read(options.manifest) if clip.language == "en"], options.minutes))
    recordings = {"dense": _recording(clips, 0), "spread": _recording(clips, options.spread)}
    with (
        serving("--backend", options.backend, "--device", "cpu", "--model", options.model, *options.flags) as client,
        Library("faster-whisper-plain", folder) as plain,
        Library("faster-whisper-vad", folder) as hearing,
    ):
        sides: dict[str, Side] = {"whisperd": Over(client), "library": Alone(plain), "library, VAD": Alone(hearing)}
        taken, texts = _measured(sides, recordings, options.rounds, clips[0].path)
    print(machine())
    lengths = ", ".join(f"{name} {len(sound) / RATE:,.0f} s" for name, sound in recordings.items())
    print(f"{options.model}, {options.rounds} rounds, medians; {len(clips)} clips, {lengths}")
    for side in sides:
        seconds = {name: statistics.median(taken[side, name]) for name in recordings}
        print(f"  {side:12}", end=" ")
        for name in recordings:
            errors = word_error_rate([" ".join(clip.text for clip in clips)], [texts[side, name]])
            print(f"{name} {seconds[name]:7.2f} s, {100 * errors:5.2f} % word errors", end="; ")
        print(f"{seconds['spread'] / seconds['dense']:.2f} times as long")


def _spoken(clips: Sequence[Clip], minutes: float) -> Iterator[Clip]:
    """The clips in an order of chance, again and again, until it is ``minutes``."""
    order, seconds = random.Random(0), 0.0  # noqa: S311
    while True:
        for clip in order.sample(clips, len(clips)):
            if seconds >= minutes * 60:
                return
            yield clip
            seconds += clip.duration


def _recording(clips: Sequence[Clip], spread: float) -> NDArray[np.int16]:
    """The clips with pauses between, about ``spread`` times as long as they are alone."""
    chance = np.random.default_rng(0)
    sounds = [samples(clip.path) for clip in clips]
    mean = max(_SHORTEST, (spread - 1) * sum(map(len, sounds)) / RATE / len(sounds))
    pauses = chance.uniform(_SHORTEST, 2 * mean - _SHORTEST, len(sounds)) * RATE
    noises = [chance.normal(0, _ROOM, int(pause)).astype(np.int16) for pause in pauses]
    return np.concatenate([part for pair in zip(sounds, noises, strict=True) for part in pair])


def _measured(
    sides: dict[str, Side], recordings: dict[str, NDArray[np.int16]], rounds: int, warm: Path
) -> tuple[dict[tuple[str, str], list[float]], dict[tuple[str, str], str]]:
    """Seconds of each round, and the last text, by side and recording."""
    taken: dict[tuple[str, str], list[float]] = {(side, name): [] for side in sides for name in recordings}
    texts: dict[tuple[str, str], str] = {}
    for each in sides.values():
        each.transcribe(warm, "en")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recording.wav"
        for round_ in tqdm(range(rounds)):
            for name in turned(list(recordings), round_):
                path.write_bytes(numbered(as_wav(recordings[name]), round_))
                for side in turned(list(sides), round_):
                    answer = sides[side].transcribe(path, "en")
                    taken[side, name].append(answer.seconds)
                    texts[side, name] = answer.text
    return taken, texts


if __name__ == "__main__":
    main()
