"""What is heard where nothing is said, and whether a job leaves anything behind for the next.

    python -m benchmarks.hearing                       rows 25 and 26 of docs/reliability.md
    python -m benchmarks.hearing --rows 25 --backends faster-whisper --model large-v3-turbo

Row 25: digital silence, noise and tones of 0.1 to 600 s. Row 26: requests with other options in an order of chance;
each must be answered as a worker answers it that has just begun. With a temperature above 0 answers are drawn by lot:
such requests are sent in between and not compared.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import random
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
from tqdm import tqdm

from benchmarks.recordings import RATE, as_wav, samples
from benchmarks.server import Server, machine
from benchmarks.verdicts import Verdicts, add_json
from tests.conftest import clips

_URL = "/v1/audio/transcriptions"
_BACKENDS = ("faster-whisper", "mlx-whisper", "whisper.cpp")
#: Text that repeats itself: its compression ratio. Seconds by which a time may be rounded.
_LOOPING, _ROUNDING_S = 2.4, 0.01
#: Of 36 kinds of request: for each, a server is started.
_KINDS = 12
#: Share of recordings without speech that may have a text, and of digital silence.
_HEARD, _HEARD_IN_SILENCE = 0.01, 0.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="25,26", help="numbers with commas between them (default 25,26)")
    parser.add_argument("--backends", default=",".join(_BACKENDS), help=f"default {','.join(_BACKENDS)}")
    parser.add_argument("--model", default="micro", help="what `whisperd serve --model` takes (default micro)")
    parser.add_argument("--sounds", type=int, default=100, help="row 25's recordings (default 100)")
    parser.add_argument("--pairs", type=int, default=2000, help="row 26's pairs of requests, of all backends together")
    add_json(parser)
    options = parser.parse_args()
    rows, backends, found = {int(row) for row in options.rows.split(",")}, options.backends.split(","), Verdicts()
    print(machine())
    for backend in backends:
        with _serving("--backend", backend, "--model", options.model) as http:
            if 25 in rows:
                nothing_said(found, http, backend, options.sounds)
        if 26 in rows:
            nothing_left(found, ("--backend", backend, "--model", options.model), options.pairs // len(backends))
    return found.end(options.json)


@contextlib.contextmanager
def _serving(*flags: str) -> Iterator[httpx.Client]:
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder), *flags)
        try:
            server.start()
            with httpx.Client(base_url=server.url, timeout=600) as http:
                yield http
        finally:
            server.stop()


# --- row 25 ---


def nothing_said(found: Verdicts, http: httpx.Client, backend: str, count: int) -> None:
    silent, heard_in_silence, heard, late, looping = 0, 0, 0, 0, 0
    for kind, sound in tqdm(_sounds(count), total=count, desc=backend):
        answer = http.post(_URL, files={"file": as_wav(sound)}, data={"response_format": "verbose_json"})
        body = answer.raise_for_status().json()
        silent += kind == "silence"
        heard += bool(body["text"])
        heard_in_silence += bool(body["text"]) and kind == "silence"
        late += any(segment["end"] > len(sound) / RATE + _ROUNDING_S for segment in body["segments"])
        looping += any(_ratio(segment["text"]) > _LOOPING for segment in body["segments"])
    figure = f"text in {heard_in_silence} of {silent} with digital silence, in {heard - heard_in_silence} of "
    figure += f"{count - silent} others; {late} with times beyond the end, {looping} looping"
    few = heard - heard_in_silence <= _HEARD * (count - silent) and heard_in_silence <= _HEARD_IN_SILENCE * silent
    found.say(25, f"{count} recordings without speech, {backend}", figure, holds=few and not late and not looping)


def _sounds(count: int) -> Iterator[tuple[str, np.ndarray]]:
    """Kind and 16-bit samples of recordings whose lengths are spread evenly by ratio from 0.1 to 600 s."""
    dice = np.random.default_rng(0)
    for number, seconds in enumerate(np.geomspace(0.1, 600, count)):
        length = int(seconds * RATE)
        time, loud = np.arange(length) / RATE, 10 ** dice.uniform(-3, -0.5)
        kind = ("silence", "white noise", "pink noise", "tone", "hum")[number % 5]
        if kind == "silence":
            wave = np.zeros(length)
        elif kind == "white noise":
            wave = dice.standard_normal(length) / 4
        elif kind == "pink noise":
            spectrum = np.fft.rfft(dice.standard_normal(length)) / np.sqrt(np.maximum(1, np.arange(length // 2 + 1)))
            wave = np.fft.irfft(spectrum, length)
            wave /= max(1e-9, np.abs(wave).max())
        elif kind == "tone":
            wave = np.sin(2 * np.pi * dice.uniform(100, 4000) * time)
        else:  # of the mains, with what it brings along
            wave = sum(np.sin(2 * np.pi * 50 * order * time) / order for order in range(1, 8)) / 2
        yield kind, np.clip(32767 * loud * wave, -32768, 32767).astype(np.int16)


def _ratio(text: str) -> float:
    data = text.encode()
    return len(data) / len(zlib.compress(data)) if data else 0.0


# --- row 26 ---


def nothing_left(found: Verdicts, flags: tuple[str, ...], pairs: int) -> None:
    recordings = [as_wav(samples(clip.path)) for clip in (*clips("en")[:2], *clips("de")[:1])]
    languages, prompts, words = ("", "en", "de"), ("", "Doctor Brown and Mrs Fletcher."), ("segment", "word")
    kinds = [
        {"language": language, "prompt": prompt, "timestamp_granularities[]": word, "temperature": "0", "file": file}
        for language, prompt, word, file in itertools.product(languages, prompts, words, recordings)
    ]
    dice = random.Random(0)  # noqa: S311
    kinds, fresh = dice.sample(kinds, _KINDS), []
    for kind in tqdm(kinds, desc=f"{flags[1]}, alone"):
        with _serving(*flags) as http:
            fresh.append(_asked(http, kind))
    wrong, drawn = 0, 0
    with _serving(*flags) as http:
        for _ in tqdm(range(pairs), desc=f"{flags[1]}, mixed"):
            number = dice.randrange(len(kinds))
            if dice.random() < 0.1:
                _asked(http, {**dice.choice(kinds), "temperature": "0.8"})
                drawn += 1
            wrong += _asked(http, kinds[number]) != fresh[number]
    figure = f"{pairs - wrong} of {pairs} answers in a random order as after a start ({len(kinds)} kinds of request); "
    found.say(26, f"state left by other jobs, {flags[1]}", f"{figure}{drawn} drawn in between", holds=not wrong)


def _asked(http: httpx.Client, kind: dict[str, object]) -> object:
    fields = {name: value for name, value in kind.items() if name != "file" and value}
    answer = http.post(_URL, files={"file": kind["file"]}, data={**fields, "response_format": "verbose_json"})
    body = answer.raise_for_status().json()
    times = [(each["start"], each["end"]) for each in body.get("segments", [])]
    return [body["text"], body["language"], times, body.get("words")]


if __name__ == "__main__":
    sys.exit(main())
