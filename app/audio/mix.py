"""Frames of any format, layout and rate to mono s16 at 16 kHz."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from typing import Any

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.filter import Graph
from numpy.typing import NDArray

from app.transcript import SAMPLE_RATE

#: More channels than libav has a standard way to mix down; they are averaged.
MIXABLE_CHANNELS = 8
#: Samples that the converter gathers to one array: per-array costs vanish, and it is half a second of sound.
CHUNK = SAMPLE_RATE // 2

Pcm = NDArray[np.int16]


class Mixer:
    """Converts frames of one format, layout and rate to mono s16 16 kHz.

    The frames go through a filter graph and only its mono output becomes an array: PyAV 18.1 crashes on the array of a
    planar frame with eight channels. A mixer takes frames like its first one; ``fits`` tells whether a frame is.
    """

    def __init__(self, frame: AudioFrame) -> None:
        self._key = _setup(frame)
        channels = frame.layout.nb_channels
        self._graph = graph = Graph()
        nodes = [
            graph.add(
                "abuffer",
                sample_rate=str(frame.sample_rate),
                sample_fmt=frame.format.name,
                channel_layout=frame.layout.name,
                time_base=f"1/{frame.sample_rate}",
            )
        ]
        if channels > MIXABLE_CHANNELS:
            nodes.append(graph.add("pan", "mono|c0<" + "+".join(f"c{i}" for i in range(channels))))
        nodes.append(graph.add("aformat", sample_rates=str(SAMPLE_RATE), sample_fmts="s16", channel_layouts="mono"))
        nodes.append(graph.add("abuffersink"))
        for left, right in pairwise(nodes):
            left.link_to(right)
        graph.configure()
        graph.set_audio_frame_size(CHUNK)

    def fits(self, frame: AudioFrame) -> bool:
        return self._key == _setup(frame)

    def feed(self, frame: AudioFrame) -> Iterator[Pcm]:
        """What can be given out so far, in (n,) arrays; ``frame`` loses its time."""
        frame.pts = None  # times do not matter here, and broken ones overflow
        self._graph.push(frame)
        return self._pull()

    def flush(self) -> Iterator[Pcm]:
        """What the resampler still holds; nothing may be fed after it."""
        self._graph.push(None)
        return self._pull()

    def _pull(self) -> Iterator[Pcm]:
        with suppress(av.error.BlockingIOError, av.error.EOFError):
            while True:
                made: Any = self._graph.pull()
                yield made.to_ndarray().reshape(-1)


def _setup(frame: AudioFrame) -> tuple[str, str, int]:
    return frame.format.name, frame.layout.name, frame.sample_rate
