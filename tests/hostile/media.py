"""The parts that odd and hostile files are made of: encoders, RIFF chunks, MP4 boxes, PNGs. Bytes in, bytes out."""

from __future__ import annotations

import io
import struct
import tempfile
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from tests.conftest import clips

Pcm = NDArray[np.int16]
RATE = 16_000
#: What is said wherever a file of the corpus speaks.
CLIP = clips("en000")[0]
#: No serial numbers, times and versions: the same bytes each time.
_EXACT = {"fflags": "+bitexact"}
#: Sets the frame's size where an encoder takes any.
_FRAME = 1024


@cache
def speech() -> Pcm:
    """The clip, (n,) int16 at 16 kHz."""
    with av.open(str(CLIP.path)) as container:
        return np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)]).astype(np.int16)


def encode(
    samples: Pcm,
    container: str,
    codec: str,
    *,
    rate: int = RATE,
    layout: str = "mono",
    video: str = "",
    muxing: dict[str, str] | None = None,
    encoding: dict[str, str] | None = None,
    in_rate: int = RATE,
) -> bytes:
    """``samples`` ((n,) int16 at ``in_rate``) as a file; ``video`` names a picture track's codec besides."""
    # Into a real file: whoever writes an index to the front reads again what it wrote.
    with (
        tempfile.NamedTemporaryFile() as target,
        av.open(target.name, "w", format=container, container_options={**_EXACT, **(muxing or {})}) as output,
    ):
        picture = output.add_stream(video, rate=25, width=64, height=64, pix_fmt="yuv420p") if video else None
        sound = output.add_stream(codec, rate=rate, layout=layout, options={"strict": "-2", **(encoding or {})})
        context = sound.codec_context
        for number in range(25 if picture else 0):
            frame = VideoFrame(64, 64, "yuv420p")
            frame.pts = number
            output.mux(picture.encode(frame))
        if picture:
            output.mux(picture.encode(None))
        resampler = av.AudioResampler(context.format, layout, rate, context.frame_size or _FRAME)
        for frame in [*resampler.resample(_frame(samples, in_rate)), *resampler.resample(None)]:
            output.mux(sound.encode(frame))
        output.mux(sound.encode(None))
        output.close()
        return Path(target.name).read_bytes()


def pictures(container: str, codec: str) -> bytes:
    """A film of a second without a sound track."""
    target = io.BytesIO()
    with av.open(target, "w", format=container) as output:
        stream = output.add_stream(codec, rate=25, width=64, height=64, pix_fmt="yuv420p")
        for number in range(25):
            frame = VideoFrame(64, 64, "yuv420p")
            frame.pts = number
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return target.getvalue()


def flac_of_rate(rate: int, layout: str = "mono", samples: int = 4_608) -> bytes:
    """Zeros as a FLAC whose header names ``rate``, which nothing resampled."""
    target = io.BytesIO()
    with av.open(target, "w", format="flac") as output:
        stream = output.add_stream("flac", rate=rate, layout=layout)
        output.mux(stream.encode(_frame(np.zeros(samples, np.int16), rate)))
        output.mux(stream.encode(None))
    return target.getvalue()


def silent_flac(hours: float) -> bytes:
    """So many hours of zeros at 8 kHz: about 12 kB an hour."""
    target = io.BytesIO()
    size = 32_768
    with av.open(target, "w", format="flac") as output:
        stream = output.add_stream("flac", rate=8_000, layout="mono", options={"frame_size": str(size)})
        frame = _frame(np.zeros(size, np.int16), 8_000)
        for number in range(round(hours * 3600 * 8_000 / size)):
            frame.pts = number * size
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return target.getvalue()


def _frame(samples: Pcm, rate: int) -> AudioFrame:
    frame = AudioFrame.from_ndarray(np.ascontiguousarray(samples.reshape(1, -1)), format="s16", layout="mono")
    frame.sample_rate = rate
    return frame


# --- RIFF ---


def chunk(name: bytes, body: bytes, size: int | None = None) -> bytes:
    """A RIFF chunk that claims ``size`` bytes, or as many as it has."""
    claimed = len(body) if size is None else size
    return name + struct.pack("<I", claimed & 0xFFFFFFFF) + body + b"\0" * (len(body) % 2 if size is None else 0)


def fmt_chunk(tag: int = 1, channels: int = 1, rate: int = RATE, bits: int = 16, extra: bytes = b"") -> bytes:
    block = channels * bits // 8
    head = struct.pack("<HHIIHH", tag, channels, rate & 0xFFFFFFFF, rate * block & 0xFFFFFFFF, block, bits)
    return chunk(b"fmt ", head + extra)


def riff(*chunks: bytes, form: bytes = b"WAVE", size: int | None = None) -> bytes:
    return chunk(b"RIFF", form + b"".join(chunks), size)


def wav(body: bytes, *, before: bytes = b"", after: bytes = b"", size: int | None = None, **fmt: int | bytes) -> bytes:
    """A WAV of ``body`` with chunks around its sound, whose own chunk claims ``size`` bytes."""
    return riff(fmt_chunk(**fmt), before, chunk(b"data", body, size), after)  # type: ignore[arg-type]


def interleaved(samples: Pcm, channels: int) -> bytes:
    return np.repeat(samples[:, None], channels, axis=1).astype("<i2").tobytes()


# --- MP4 ---


def box(name: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I", 8 + len(body)) + name + body


def boxes(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(name, body) of each box; a size of 0 goes to the end."""
    position = 0
    while position + 8 <= len(content):
        size, name = struct.unpack_from(">I4s", content, position)
        size = size or len(content) - position
        yield name, content[position + 8 : position + size]
        position += max(size, 8)


def replaced(content: bytes, path: list[bytes], body: bytes) -> bytes:
    """``content`` with the body of the (first track's) box at ``path`` replaced."""
    return b"".join(
        box(name, body if len(path) == 1 else replaced(inner, path[1:], body)) if name == path[0] else box(name, inner)
        for name, inner in boxes(content)
    )


def with_edits(m4a: bytes, entries: int) -> bytes:
    """An M4A whose edit list has so many entries, each the whole sound."""
    edits = struct.pack(">II", 0, entries) + struct.pack(">IiI", 1_000, 0, 0x10000) * entries
    return replaced(m4a, [b"moov", b"trak", b"edts"], box(b"elst", edits))


def with_chunks(m4a: bytes, chunks: int, samples_per_chunk: int) -> bytes:
    """An M4A whose chunk table points at one place so many times."""
    table = [b"moov", b"trak", b"mdia", b"minf", b"stbl"]
    total = chunks * samples_per_chunk
    place = next(at for at in range(len(m4a)) if m4a.startswith(b"mdat", at)) + 4
    out = replaced(m4a, [*table, b"stco"], struct.pack(">II", 0, chunks) + struct.pack(">I", place) * chunks)
    out = replaced(out, [*table, b"stsc"], struct.pack(">IIIII", 0, 1, 1, samples_per_chunk, 1))
    out = replaced(out, [*table, b"stsz"], struct.pack(">III", 0, 16, total))
    return replaced(out, [*table, b"stts"], struct.pack(">IIII", 0, 1, total, 1024))


# --- pictures ---


def png(side: int, level: int = 1) -> bytes:
    """A black square of ``side`` pixels: 16,000 are 0.8 GB in a few kilobytes."""

    def part(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    packer = zlib.compressobj(level)
    line = bytes(1 + side * 3)
    pixels = b"".join([*(packer.compress(line) for _ in range(side)), packer.flush()])
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", pixels) + part(b"IEND", b"")


def with_cover(flac: bytes, picture: bytes, side: int) -> bytes:
    """A FLAC with ``picture`` as its cover, behind STREAMINFO."""
    block = struct.pack(">II", 3, 9) + b"image/png" + struct.pack(">IIIIII", 0, side, side, 24, 0, len(picture))
    block += picture
    return flac[:42] + bytes([6]) + len(block).to_bytes(3, "big") + block + flac[42:]


def id3(size: int, body: bytes = b"") -> bytes:
    """An ID3v2.4 tag of ``size`` bytes behind its header: ``body``, then padding."""
    sevens = bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\x04\x00\x00" + sevens + body.ljust(size, b"\0")
