"""The MLX backend beside mlx-whisper itself, in one process on the same loaded weights: what a GPU makes of either.

    python -m benchmarks.device                                          micro, on the clips of the tests
    python -m benchmarks.device --model MLX_FOLDER --manifest M          your model and recordings
    python -m benchmarks.device --model random:large-v3-turbo            its work without its weights (no word errors)

Clips of 2 to 30 s against the library, encoded as 30 s and as the clip and 3 s; how a call's seconds and memory grow
with its windows; a long recording whole; and word errors. Greedy, English, float16 on a GPU.
``--manifest`` is a JSON list of ``{"file", "language", "text"}`` beside its files, with a ``"kind"`` or without. Where
they are WAV files of 16 kHz, mono, 16 bits, no library decodes them. ``random:`` takes a name of
``benchmarks.scripted.SIZES``: its text is bound to be 8 to 80 words a window, whatever the sound.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import wave
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein

from app.backends.base import LoadOptions
from app.transcript import SAMPLE_RATE, Window
from benchmarks import scripted
from benchmarks.device_sides import PADDING_S, Library, Ours, Spent, alone, plain_windows, spoken_windows
from benchmarks.library import folder_of
from benchmarks.server import machine

Pcm = NDArray[np.int16]

CLIPS = Path(__file__).parent.parent / "tests" / "data" / "audio" / "manifest.json"
#: Seconds of the clips that are timed, and the words that scripted weights give them.
TIMED = {2: 8, 5: 8, 10: 20, 30: 80}
#: Windows in a call.
BATCHES = (1, 2, 4, 8, 16, 32)
GAP_S = 0.4
PARTS = ("clips", "batches", "long", "words")


def main() -> None:
    options = _arguments()
    rows = [row for row in json.loads(options.manifest.read_text()) if row["language"] == "en"]
    scripts = options.model.startswith("random:")
    with tempfile.TemporaryDirectory() as folder:
        model = _model(options.model, Path(folder))
        ours = Ours()
        info = ours.load(str(model), LoadOptions(device=options.device, precision=options.precision))
        library = Library(ours, model, info.precision == "float16")
        print(f"{machine()}; {_device()} ({info.device}), {info.precision}; {options.model}")
        weights = ours.rest().active
        print(f"weights {weights / 1e6:.0f} MB; medians of {options.rounds} interleaved rounds")
        bench = Bench(ours, library, scripts, options.rounds)
        sound = _joined([_read(options.manifest.parent / row["file"]) for row in rows], options.minutes)
        if "clips" in options.parts:
            bench.clips(sound)
        for longest in options.longest:
            windows = (plain_windows if options.windows == "plain" else spoken_windows)(sound, longest)
            print(f"\n{len(windows)} windows of at most {longest} s")
            if "batches" in options.parts:
                bench.batches(sound, windows, options.batches, longest)
            if "long" in options.parts:
                bench.long(sound, windows, options.batches, longest)
        if "words" in options.parts and not scripts:
            bench.words(rows, options.manifest.parent)


class Bench:
    """The measurements, each of which prints its table."""

    def __init__(self, ours: Ours, library: Library, scripts: bool, rounds: int) -> None:
        self._ours, self._library, self._scripts, self._rounds = ours, library, scripts, rounds

    def clips(self, sound: Pcm) -> None:
        """One clip at a time: the library, the backend at 30 s in the encoder, and at the clip and ``PADDING_S``."""
        print(f"\n{'clip':>6} {'library':>9} {'30 s':>9} {'fit':>9} {'30 s / library':>15} {'fit / library':>14}")
        for seconds, words in TIMED.items():
            pcm = sound[: seconds * SAMPLE_RATE]
            full, fit = [alone(pcm, None)], [alone(pcm, PADDING_S)]
            calls = {
                "library": partial(self._library.text, pcm),
                "full": partial(self._ours.text, pcm, full),
                "fit": partial(self._ours.text, pcm, fit),
            }
            took = self._timed(calls, self._follow(words, seconds))
            print(
                f"{seconds:4} s  {_ms(took['library'])} {_ms(took['full'])} {_ms(took['fit'])}"
                f" {took['full'] / took['library']:15.2f} {took['fit'] / took['library']:14.2f}"
            )

    def batches(self, sound: Pcm, windows: Sequence[Window], batches: Sequence[int], longest: int) -> None:
        """What a call costs by the number of its windows, taken again where the recording has too few."""
        print(f"\n{'windows':>8} {'call':>9} {'a window':>9} {'encode':>9} {'decode':>9} {'peak':>9} {'come back':>10}")
        groups = {size: [windows[i % len(windows)] for i in range(size)] for size in batches}
        self._follow(_words(longest), longest)
        peaks, returned, spent = dict[int, int](), dict[int, int](), {size: list[Spent]() for size in batches}
        for size, group in groups.items():
            self._ours.step(sound, group)  # a new length of input compiles
            self._ours.rest()
            returned[size] = len(self._ours.step(sound, group)[1])
            peaks[size] = self._ours.rest().peak
        for _ in range(self._rounds):
            for size, group in groups.items():
                self._ours.spent = Spent()
                self._ours.step(sound, group)
                spent[size].append(self._ours.spent)
        for size, each in spent.items():
            whole, encode, decode = (
                statistics.median(getattr(one, part) for one in each) for part in ("whole", "encode", "decode")
            )
            print(
                f"{size:8} {_ms(whole)} {_ms(whole / size)} {_ms(encode)} {_ms(decode)}"
                f" {peaks[size] / 1e6:6.0f} MB {returned[size]:10}"
            )

    def long(self, sound: Pcm, windows: Sequence[Window], batches: Sequence[int], longest: int) -> None:
        """A recording to its last remainder, by the windows in a call, against the library's whole call."""
        print(f"\n{len(sound) / SAMPLE_RATE:.0f} s of sound, {len(windows)} windows, to the end of the text")
        calls = {"library": partial(self._bound, 30, partial(self._library.text, sound))}
        for size in batches:
            if size == 1 or size < 2 * len(windows):
                calls[f"{size} a call"] = partial(self._bound, longest, partial(self._ours.text, sound, windows, size))
        took = self._timed(calls, "")
        for name, seconds in took.items():
            print(f"  {name:>10} {seconds:8.3f} s, {seconds / took['library']:.2f} of the library's")

    def words(self, rows: Sequence[Mapping[str, Any]], folder: Path) -> None:
        """Word errors of every clip of up to 30 s: the library's, and the backend's at 30 s and at a fit."""
        names = ("library", "30 s", "fit")
        errors: dict[str, dict[str, list[int]]] = {}
        for row in rows:
            pcm = _read(folder / row["file"])
            if len(pcm) > 30 * SAMPLE_RATE:
                continue
            texts, turned_down = [self._library.text(pcm)], [0]
            for padding in (None, PADDING_S):
                self._ours.turned_down = 0
                texts.append(self._ours.text(pcm, [alone(pcm, padding)]))
                turned_down.append(self._ours.turned_down)
            said = _plain(row["text"])
            for kind in ("all", str(row.get("kind", "clips"))):
                sums = errors.setdefault(kind, {"clips": [0], "words": [0]} | {name: [0, 0] for name in names})
                sums["clips"][0] += 1
                sums["words"][0] += len(said)
                for name, text, again in zip(names, texts, turned_down, strict=True):
                    sums[name][0] += Levenshtein.distance(said, _plain(text))
                    sums[name][1] += again
        header = f"{'word errors':>12} {'clips':>6} {'words':>6} {'library':>8} {'30 s':>6} {'fit':>6}"
        print(f"\n{header}  greedy texts turned down")
        for kind, sums in errors.items():
            (library, _), (full, full_again), (fit, fit_again) = (sums[name] for name in names)
            print(
                f"{kind:>12} {sums['clips'][0]:6} {sums['words'][0]:6} {library:8} {full:6} {fit:6}"
                f"  {full_again} at 30 s, {fit_again} at a fit"
            )

    def _follow(self, words: int, seconds: float) -> str:
        """Give scripted weights their text, which is returned; nothing where the weights are a real model's."""
        return self._ours.follow(words, seconds).text if self._scripts else ""

    def _bound(self, seconds: int, call: Callable[[], str]) -> str:
        """A call on windows of so many seconds, of which scripted weights make as many words as people do."""
        script = self._follow(_words(seconds), seconds)
        text = call()
        _check(f"windows of {seconds} s", text, script)
        return text

    def _timed(self, calls: Mapping[str, Callable[[], str]], script: str) -> dict[str, float]:
        """The median seconds of each call, after one that does not count but must give ``script`` for each window."""
        took: dict[str, list[float]] = {name: [] for name in calls}
        for name, call in calls.items():
            _check(name, call(), script)
        for _ in range(self._rounds):
            for name, call in calls.items():
                started = time.perf_counter()
                call()
                took[name].append(time.perf_counter() - started)
        return {name: statistics.median(seconds) for name, seconds in took.items()}


def _words(seconds: int) -> int:
    """How many words scripted weights make of a window of a long recording."""
    return round(seconds * 80 / 30)


def _check(name: str, text: str, script: str) -> None:
    heard, bound = text.split(), script.split()
    if bound and (not heard or heard != bound * (len(heard) // len(bound))):
        raise SystemExit(f"{name} did not decode the script {script!r} but {' '.join(heard)!r}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", default="micro", help="micro, a folder in Hugging Face's or MLX's format, random:NAME"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, metal or cuda")
    parser.add_argument("--precision", default="default", help="default, float16, bfloat16 or float32")
    parser.add_argument("--manifest", type=Path, default=CLIPS)
    parser.add_argument("--minutes", type=float, default=5, help="length of the recording that the clips are joined to")
    parser.add_argument(
        "--windows", default="speech", choices=["speech", "plain"], help="cut at pauses, or at full length"
    )
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES, help="numbers of windows in a call")
    parser.add_argument(
        "--longest",
        type=int,
        nargs="+",
        default=[30, 15],
        help="longest windows in seconds, fitted where under 30",
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    return parser.parse_args()


def _model(name: str, folder: Path) -> Path:
    """An MLX folder for ``name``; made in ``folder`` where it is made of nothing."""
    if name.startswith("random:"):
        scripted.write(name.removeprefix("random:"), folder)
        return folder
    if (Path(name) / "weights.safetensors").is_file():
        return Path(name)
    return folder_of(name, "mlx-whisper")


def _device() -> str:
    import mlx.core as mx

    return str(mx.device_info(mx.default_device()).get("device_name", "unknown device"))


def _read(path: Path) -> Pcm:
    """A recording's samples at 16 kHz; only one that is no WAV needs PyAV."""
    if path.suffix != ".wav":
        from benchmarks.recordings import samples

        return samples(path)
    with wave.open(str(path)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (SAMPLE_RATE, 1, 2), path
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.int16)


def _joined(clips: Sequence[Pcm], minutes: float) -> Pcm:
    """The clips one after the other with pauses, from the start again where they run out, cut to ``minutes``."""
    gap, length, parts, number = np.zeros(int(GAP_S * SAMPLE_RATE), np.int16), 0, list[Pcm](), 0
    while length < minutes * 60 * SAMPLE_RATE:
        parts += [clips[number % len(clips)], gap]
        length += len(parts[-1]) + len(parts[-2])
        number += 1
    return np.concatenate(parts)[: int(minutes * 60 * SAMPLE_RATE)]


def _plain(text: str) -> list[str]:
    """The words without case and punctuation."""
    return "".join(c if c.isalnum() or c in "' " else " " for c in text.lower().replace("-", " ")).split()


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:6.1f} ms"


if __name__ == "__main__":
    main()
