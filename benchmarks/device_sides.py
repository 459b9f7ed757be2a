"""The two sides of ``benchmarks.device``: whisperd's MLX backend and mlx-whisper itself, on the same loaded weights."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.backends import rules
from app.backends.mlx_whisper import MlxWhisper
from app.backends.tokens import prompt_tokens
from app.backends.whisper import Pass
from app.transcript import MAX_WINDOW, SAMPLE_RATE, Options, Segment, Window, join_text
from benchmarks import scripted
from benchmarks.library import on_samples

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Silence behind a fitted window in the encoder, in seconds.
PADDING_S = 3
#: English, as the library is asked too; nothing else is said.
OPTIONS = Options(language="en")


@dataclass(slots=True)
class Spent:
    """Seconds of a backend's calls: the encoder's part (spectrogram included), and the rest, which is decoding."""

    encode: float = 0.0
    decode: float = 0.0

    @property
    def whole(self) -> float:
        return self.encode + self.decode


class Ours(MlxWhisper):
    """The backend, with a clock and with a note of each greedy attempt that the guards turn down."""

    def __init__(self) -> None:
        super().__init__()
        self.spent = Spent()
        self.turned_down = 0

    def _encode(self, audio: Sequence[NDArray[np.float32]], frames: int) -> Any:
        started = time.perf_counter()
        features = super()._encode(audio, frames)  # evaluated when it comes back
        self.spent.encode += time.perf_counter() - started
        return features

    def _greedy(self, work: Pass) -> list[rules.Attempt]:
        attempts = super()._greedy(work)
        self.turned_down += sum(map(rules.needs_fallback, attempts))
        return attempts

    def step(self, pcm: NDArray[np.int16], windows: Sequence[Window]) -> tuple[list[Segment], list[Window]]:
        """One call on ``windows``: their segments, and the windows that go back to the queue."""
        before, started = self.spent.encode, time.perf_counter()
        results = self.transcribe(pcm, windows, OPTIONS).windows
        self.spent.decode += time.perf_counter() - started - (self.spent.encode - before)
        segments = [segment for result in results for segment in result.segments]
        return segments, [window for result in results for window in result.again]

    def text(self, pcm: NDArray[np.int16], windows: Sequence[Window], batch: int = 1) -> str:
        """All that is said in ``windows``, ``batch`` in a call, with all that goes back to the queue."""
        queue, segments = list(windows), list[Segment]()
        while queue:
            # As in the engine, a window that failed the guards is alone.
            size = 1 if queue[0].retry else next((i for i, w in enumerate(queue) if w.retry), len(queue))
            taken, queue = queue[: min(batch, size)], queue[min(batch, size) :]
            heard, again = self.step(pcm, taken)
            segments += heard
            queue = again + queue
        return join_text(segment.text for segment in sorted(segments, key=lambda segment: segment.start))

    def follow(self, words: int, seconds: float) -> scripted.Script:
        """Bind a model with scripted weights to ``words`` words that end at ``seconds``."""
        tokenizer = self._tokenizer("en", "transcribe")
        script = scripted.make_script(tokenizer, words, seconds)
        self._decoder = None  # its compiled steps know the weights of before
        scripted.install(self._model, prompt_tokens(tokenizer, ""), script, int(tokenizer.eot))
        return script


class Library:
    """``mlx_whisper.transcribe`` on the weights that ``ours`` has loaded from ``folder``."""

    def __init__(self, ours: Ours, folder: Path, half: bool) -> None:
        self._call = on_samples(ours._model, str(folder), half=half)

    def text(self, pcm: NDArray[np.int16]) -> str:
        return self._call(pcm, OPTIONS.language).strip()


def alone(pcm: NDArray[np.int16], padding_s: float | None) -> Window:
    """The whole of ``pcm`` (at most 30 s) as one window, encoded as 30 s, or with ``padding_s`` of silence behind it,
    in whole seconds."""
    length = len(pcm)
    window = Window(0, length, ((0, length),))
    return window if padding_s is None else window.fitted(int(padding_s * SAMPLE_RATE))


def plain_windows(pcm: NDArray[np.int16], longest: int) -> list[Window]:
    """``pcm`` cut every ``longest`` seconds."""
    length = longest * SAMPLE_RATE
    spans = [(start, min(start + length, len(pcm))) for start in range(0, len(pcm), length)]
    return [_fitted(Window(start, end, ((start, end),)), longest) for start, end in spans]


def _fitted(window: Window, longest: int) -> Window:
    return window if longest == MAX_WINDOW // SAMPLE_RATE else window.fitted(PADDING_S * SAMPLE_RATE)


def spoken_windows(pcm: NDArray[np.int16], longest: int) -> list[Window]:
    """``pcm`` cut as the server's decoder cuts an upload, into windows of at most ``longest`` seconds."""
    from app.audio.vad import make_detector
    from app.audio.windows import WindowCutter

    detector, cutter, windows = make_detector(), WindowCutter(longest=longest * SAMPLE_RATE), list[Window]()
    for found in (detector.feed(pcm), detector.finish()):
        probabilities, energies = found
        windows += cutter.feed(probabilities.tolist(), energies.tolist())
    return [_fitted(window, longest) for window in windows + cutter.finish(len(pcm))]
