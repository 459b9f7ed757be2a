"""Files to decode, made with PyAV: honest ones of every common kind, and the parts of hostile ones."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import av
import numpy as np
import pytest

CLIPS = Path(__file__).parent.parent / "data" / "audio"


def read_clip(name):
    """A clip of tests/data/audio as int16 samples (they are all 16 kHz mono)."""
    with av.open(str(CLIPS / name)) as container:
        frames = [frame.to_ndarray() for frame in container.decode(audio=0)]
    return np.concatenate(frames, axis=1)[0].astype(np.int16)


@pytest.fixture(scope="session")
def clips():
    """The names of all clips."""
    return [entry["file"] for entry in json.loads((CLIPS / "manifest.json").read_text())]


@pytest.fixture(scope="session")
def clip():
    return read_clip


@pytest.fixture(scope="session")
def minute():
    """Nearly a minute of speech (56.76 s): clips with half a second between, int16 at 16 kHz."""
    gap = np.zeros(8_000, np.int16)
    parts = [part for i in range(15) for part in (read_clip(f"en{i:03}.flac"), gap)]
    return np.concatenate(parts)


@pytest.fixture(scope="session")
def encode():
    """``encode(path, samples, …)``: write int16 (n,) at 16 kHz into ``path`` as the container its suffix names."""
    return _encode


def _encode(path, samples, codec, *, rate=16_000, layout="mono", sample_format=None, container=None, picture=False):
    with av.open(str(path), "w", format=container) as output:
        video = output.add_stream("mpeg4", rate=10, width=64, height=64, pix_fmt="yuv420p") if picture else None
        stream = output.add_stream(codec, rate=rate, layout=layout)
        if sample_format:
            stream.codec_context.format = sample_format
        context = stream.codec_context
        convert = av.AudioResampler(format=context.format, layout=layout, rate=rate, frame_size=context.frame_size)
        if video is not None:
            for _ in range(10):
                output.mux(video.encode(av.VideoFrame(64, 64, "yuv420p")))
            output.mux(video.encode(None))
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = 16_000
        for converted in [*convert.resample(frame), *convert.resample(None)]:
            output.mux(stream.encode(converted))
        output.mux(stream.encode(None))
    return path


@pytest.fixture(scope="session")
def wav():
    """``wav(samples, …)``: the bytes of a WAV, its header's lies to choose."""
    return _wav


def _wav(samples, *, rate=16_000, channels=1, data_size=None, extra=b""):
    body = np.repeat(samples[:, None], channels, axis=1).astype("<i2").tobytes()
    fmt = struct.pack("<HHIIHH", 1, channels, rate, rate * channels * 2, channels * 2, 16)
    size = len(body) if data_size is None else data_size
    chunks = b"fmt " + struct.pack("<I", len(fmt)) + fmt + extra + b"data" + struct.pack("<I", size) + body
    return b"RIFF" + struct.pack("<I", (4 + len(chunks)) & 0xFFFFFFFF) + b"WAVE" + chunks
