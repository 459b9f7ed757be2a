"""What whisperd adds: the HTTP answer's time minus the same warm library's called in-process with the file's path.

Both sides decode the file, find its speech and run the same weights greedily with the same threads; rounds are
interleaved and the order alternates, so that a noisy minute hits both. Reports medians.

    python -m benchmarks.overhead                          1 s clip on micro
    python -m benchmarks.overhead --model DIR --audio F    your CTranslate2 model and recording
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
from tqdm import tqdm

from benchmarks.library import LIBRARIES, folder_of
from benchmarks.server import machine, serving

CLIPS = Path(__file__).parent.parent / "tests" / "data" / "audio"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="micro", help="micro, or a folder in CTranslate2 or Hugging Face format")
    parser.add_argument("--audio", type=Path, help="recording to send (default: a test clip)")
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="length to cut or repeat the recording to (default 1)"
    )
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument(
        "--pause", type=float, default=0.3, help="seconds between calls, for spinning threads to settle"
    )
    options = parser.parse_args()

    with (
        tempfile.TemporaryDirectory() as folder,
        serving("--backend", "faster-whisper", "--model", options.model) as client,
    ):
        clip = Path(folder) / "clip.wav"
        cut(options.audio or CLIPS / "en000.flac", clip, options.seconds)
        library = LIBRARIES["faster-whisper-vad"](str(folder_of(options.model, "faster-whisper")), 1)
        sides: dict[str, Callable[[], str]] = {
            "http": lambda: client.transcribe(clip, language="en").json()["text"],
            "library": lambda: library(str(clip), "en"),
        }
        for _ in range(3):
            texts = {name: call() for name, call in sides.items()}
        times: dict[str, list[float]] = {name: [] for name in sides}
        for round_ in tqdm(range(options.rounds)):
            for name in sorted(sides, reverse=bool(round_ % 2)):
                time.sleep(options.pause)
                started = time.perf_counter()
                sides[name]()
                times[name].append(time.perf_counter() - started)
    report(times, texts, options)


def report(times: dict[str, list[float]], texts: dict[str, str], options: argparse.Namespace) -> None:
    http, library = (statistics.median(times[name]) * 1000 for name in ("http", "library"))
    print(machine())
    print(f"model {options.model}, {options.seconds:g} s of audio, {options.rounds} rounds, medians")
    print(f"  texts {'agree' if texts['http'].strip() == texts['library'].strip() else f'differ: {texts}'}")
    print(f"  library {library:8.1f} ms")
    print(f"  http    {http:8.1f} ms")
    print(f"  added   {http - library:8.1f} ms  ({(http / library - 1) * 100:+.1f} %)")


def cut(source: Path, target: Path, seconds: float) -> None:
    """``source`` repeated or cut to ``seconds`` as 16 kHz mono WAV."""
    with av.open(str(source)) as container:
        resampler = av.AudioResampler("s16", "mono", 16_000)
        frames = [part.to_ndarray()[0] for frame in container.decode(audio=0) for part in resampler.resample(frame)]
    samples = np.resize(np.concatenate(frames), int(seconds * 16_000))
    with av.open(str(target), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))


if __name__ == "__main__":
    main()
