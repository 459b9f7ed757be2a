"""The bundled sentences as something to measure: all but one in one recording of four minutes, and one alone.

A recording of one sentence says what a dictation costs, not how fast a podcast goes.
"""

from __future__ import annotations

import wave
from pathlib import Path

from app.recordings import Recording, bundled
from app.transcript import SAMPLE_RATE

#: Of silence between sentences.
_GAP_S = 0.5


def joined(folder: Path) -> list[Recording]:
    """The two recordings; the long one is made in ``folder``."""
    alone, *others = bundled()
    path = folder / "sentences.wav"
    gap = bytes(2 * int(_GAP_S * SAMPLE_RATE))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(gap.join(_samples(recording.path) for recording in others))
    return [Recording(path, " ".join(recording.reference or "" for recording in others), "en"), alone]


def _samples(path: Path) -> bytes:
    from app.audio.decode import Sound

    with Sound(str(path), audio_s=60, wall_s=60) as sound:
        return b"".join(block.tobytes() for block in sound.blocks())
