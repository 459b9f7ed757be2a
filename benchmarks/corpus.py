"""Recordings of a wanted length, with what is said in them: chosen or joined of the clips of manifests.

A manifest is a JSON list of ``{"file", "language", "text", "duration"}`` beside its files; without ``duration`` (in
seconds) the file is decoded to know it.
"""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.recordings import RATE, as_wav, numbered, samples
from tests.conftest import AUDIO, Clip

MANIFEST = AUDIO / "manifest.json"
#: Seconds of silence between clips that are joined.
GAP_S = 0.5
#: A clip is of a length if it is so much longer or shorter at most; one that nothing better is found for, so much
#: longer.
_NEAR, _AT_MOST = 0.2, 0.5
#: So many times as many recordings are joined as are wanted; those are kept that are so full, else the fullest.
_TRIES, _FULL = 50, 0.95


@dataclass(frozen=True)
class Choice:
    """Clips to be joined in this order, ``GAP_S`` between them; or the first ``cut`` seconds of one."""

    parts: tuple[Clip, ...]
    cut: float | None = None

    @property
    def seconds(self) -> float:
        return self.cut or sum(part.duration for part in self.parts) + GAP_S * (len(self.parts) - 1)

    @property
    def text(self) -> str | None:
        """What is said; None where a cut leaves that unknown."""
        return None if self.cut else " ".join(part.text for part in self.parts)


@dataclass(frozen=True)
class Made:
    """A recording on the disk, 16 kHz mono WAV, ``seconds`` long; ``text`` as in ``Choice``."""

    path: Path
    seconds: float
    text: str | None


def read(manifest: Path) -> list[Clip]:
    return [_clip(manifest.parent, row) for row in json.loads(manifest.read_text())]


def _clip(folder: Path, row: dict[str, Any]) -> Clip:
    path = folder / row["file"]
    seconds = float(row["duration"]) if "duration" in row else len(samples(path)) / RATE
    return Clip(path, row["language"], seconds, row["text"])


def choose(clips: Sequence[Clip], seconds: float, count: int, *, seed: int = 0) -> list[Choice]:
    """``count`` recordings of about ``seconds``, all different as far as the clips go, then again from the first.

    Clips that are near that length by nature come first; then clips joined to at most that length; then clips that are
    longer by half at most. Only where there is none of all these, longer clips are cut.
    """
    found = [Choice((clip,)) for clip in _nearest(clips, seconds, 1 - _NEAR, 1 + _NEAR)]
    if len(found) < count:
        found += _joined(clips, seconds, count - len(found), seed)
    if len(found) < count:
        found += [Choice((clip,)) for clip in _nearest(clips, seconds, 1 + _NEAR, 1 + _AT_MOST)]
    if not found:
        found = [Choice((clip,), seconds) for clip in _nearest(clips, seconds, 1, np.inf)]
    if not found:
        raise SystemExit(f"there are no clips to make {seconds:g} s of")
    return [found[number % len(found)] for number in range(count)]


def _nearest(clips: Sequence[Clip], seconds: float, least: float, most: float) -> list[Clip]:
    """The clips between ``least`` and ``most`` times ``seconds``, the nearest first."""
    fit = [clip for clip in clips if least * seconds < clip.duration <= most * seconds]
    return sorted(fit, key=lambda clip: (abs(clip.duration - seconds), clip.path.name))


def _joined(clips: Sequence[Clip], seconds: float, count: int, seed: int) -> list[Choice]:
    order = random.Random(seed)  # noqa: S311
    tried = dict.fromkeys(_filled(clips, seconds, order) for _ in range(_TRIES * count))
    joined = [Choice(parts) for parts in tried if len(parts) > 1]
    near = [choice for choice in joined if choice.seconds >= (1 - _NEAR) * seconds]
    return sorted(near, key=lambda choice: max(0, _FULL * seconds - choice.seconds))[:count]


def _filled(clips: Sequence[Clip], seconds: float, order: random.Random) -> tuple[Clip, ...]:
    """Clips in an order of chance, again and again, until one does not fit; then the longest that does."""
    parts, room = list[Clip](), seconds
    while clips:
        for clip in order.sample(clips, len(clips)):
            if clip.duration > room:
                last = [other for other in clips if other.duration <= room and other not in parts[-len(clips) // 2 :]]
                return (*parts, *sorted(last, key=lambda clip: clip.duration)[-1:])
            parts.append(clip)
            room -= clip.duration + GAP_S
    return ()


def make(choices: Sequence[Choice], folder: Path) -> list[Made]:
    """Write the recordings into ``folder``, each unlike the others for who looks at its bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    return [_made(choice, folder / f"{number}.wav", number) for number, choice in enumerate(choices)]


def _made(choice: Choice, path: Path, number: int) -> Made:
    gap = np.zeros(int(GAP_S * RATE), np.int16)
    pieces = [piece for part in choice.parts for piece in (_samples(part.path), gap)][:-1]
    sound = np.concatenate(pieces)[: int(choice.cut * RATE) if choice.cut else None]
    path.write_bytes(numbered(as_wav(sound), number))
    return Made(path, len(sound) / RATE, choice.text)


_samples = functools.lru_cache(maxsize=256)(samples)
