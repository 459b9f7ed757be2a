"""Recordings for the benchmarks: joined of clips, each unlike the others, as 16 kHz mono WAV."""

from __future__ import annotations

import io
import random
import struct
import wave
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

RATE = 16_000


def joined(files: Sequence[Path], target: Path, seconds: float, *, seed: int = 0, gap_s: float = 0.5) -> float:
    """Write whole ``files`` in an order of chance, again and again, as many as fit in ``seconds``; one that alone is
    longer is cut. Returns the seconds written.
    """
    order, parts, room = random.Random(seed), list[NDArray[np.int16]](), int(seconds * RATE)  # noqa: S311
    gap = np.zeros(int(gap_s * RATE), np.int16)
    sounds = [samples(file) for file in files]
    while True:
        for sound in order.sample(sounds, len(sounds)):
            if len(sound) > room:
                whole = np.concatenate(parts) if parts else sound[:room]
                target.write_bytes(as_wav(whole))
                return len(whole) / RATE
            parts += [sound, gap]
            room -= len(sound) + len(gap)


def samples(path: Path) -> NDArray[np.int16]:
    """A recording of any kind, decoded."""
    with av.open(str(path)) as container:
        resampler = av.AudioResampler("s16", "mono", RATE)
        frames = [part.to_ndarray()[0] for frame in container.decode(audio=0) for part in resampler.resample(frame)]
    return np.concatenate(frames)


def as_wav(sound: NDArray[np.int16]) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(sound.astype("<i2").tobytes())
    return buffer.getvalue()


def numbered(wav: bytes, number: int) -> bytes:
    """The same sound as another file: requests with equal files at once are one job for the server."""
    size = struct.unpack_from("<I", wav, 4)[0] + 16
    return wav[:4] + struct.pack("<I", size) + wav[8:] + struct.pack("<4sIQ", b"numb", 8, number)
