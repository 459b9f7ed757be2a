"""Odd and bad files with the answer that each should get. Everything is made here, the same each time.

``cases`` gives them all. A file that speaks says ``media.CLIP.text``; what is claimed of a file (name, content type) is
taken in turn from lists of lies, for a claim must change nothing.
"""

from __future__ import annotations

import bz2
import gzip
import io
import itertools
import lzma
import random
import sqlite3
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import av
import numpy as np

from tests.hostile.media import (
    RATE,
    Pcm,
    box,
    chunk,
    encode,
    flac_of_rate,
    fmt_chunk,
    id3,
    interleaved,
    pictures,
    png,
    riff,
    silent_flac,
    speech,
    wav,
    with_chunks,
    with_cover,
    with_edits,
)

#: Names that reach for paths, playlists, terminals and buffers.
NAMES = (
    "clip.wav",
    "../../etc/passwd",
    "x.m3u8",
    "n" * 5_000,
    "a\0b.wav",
    "two\nlines\r\nX-Injected: yes.mp3",
    "\u202egpj.wav\u202c",
    "/dev/stdin",
    "http://127.0.0.1:9/a.wav",
    "$(touch x);`id`.mp3",
    "-i.flac",
    'quo"te\\.ogg',
    "CON.mp3",
    "%00%2e%2e%2f.wav",
    "\U0001f3a4 \u0644\u0639.m4a",
    "",
    "x.sdp",
    "concat:a|b",
)
TYPES = (
    "audio/wav",
    "application/octet-stream",
    "text/html",
    "application/vnd.apple.mpegurl",
    "image/png",
    "audio/mpeg; codecs=nonsense",
    "",
    "no type at all",
    "x/" + "y" * 200,
)

#: What ``Case.expected`` says of an answer that is 200.
TEXT, NOTHING, ANY = "text", "nothing", "any text"
BROKEN, UNKNOWN, LONG, SHORT = "undecodable_audio", "unsupported_audio", "audio_too_long", "audio_too_short"
_STATUS = {TEXT: 200, NOTHING: 200, ANY: 200, LONG: 413}


@dataclass(frozen=True)
class Case:
    """``expected`` is the error's code, or for 200 ``TEXT`` (the clip's), ``NOTHING`` (empty) or ``ANY``; of a refusal
    ``finding`` is a part of its sentence."""

    name: str
    content: bytes
    file_name: str
    content_type: str
    status: int
    expected: str
    finding: str = ""


#: (name, what makes its bytes, what is expected, a part of the sentence)
Row = tuple[str, Callable[[], bytes], str, str]


def cases() -> Iterator[Case]:
    """Every file of the corpus, made one at a time."""
    names, types = itertools.cycle(NAMES), itertools.cycle(TYPES)
    for name, make, expected, finding in rows():
        status = _STATUS.get(expected, 400)
        yield Case(name, make(), next(names), next(types), status, expected, finding)


def rows() -> Iterator[Row]:
    for name, make in {**_odd_wavs(), **_odd_codecs(), **_odd_containers()}.items():
        yield name, make, TEXT, ""
    for name, make in _silences().items():
        yield name, make, NOTHING, ""
    yield from _bombs()
    yield from _broken()
    yield from _strangers()
    yield from _texts()


# --- odd, yet sound ---


def _odd_wavs() -> dict[str, Callable[[], bytes]]:
    pcm = speech()
    body = pcm.astype("<i2").tobytes()

    def of(codec: str, rate: int = RATE, layout: str = "mono") -> Callable[[], bytes]:
        return lambda: encode(pcm, "wav", codec, rate=rate, layout=layout)

    found: dict[str, Callable[[], bytes]] = {}
    for codec in ("u8", "s16le", "s24le", "s32le", "s64le", "f32le", "f64le", "alaw", "mulaw"):
        found[f"wav of pcm_{codec}"] = of(f"pcm_{codec}")
    for rate in (8_000, 11_025, 12_000, 22_050, 32_000, 44_100, 48_000, 88_200, 96_000, 192_000, 384_000):
        found[f"wav at {rate} Hz"] = of("pcm_s16le", rate)
    for layout in ("stereo", "2.1", "4.0", "5.1", "7.1"):
        found[f"wav in {layout}"] = of("pcm_s16le", 48_000, layout)
    for channels in (9, 32, 64):
        found[f"wav with {channels} channels"] = lambda n=channels: wav(interleaved(pcm, n), channels=n)
    for codec in ("adpcm_ima_wav", "adpcm_ms", "adpcm_yamaha", "g722", "libmp3lame", "ac3"):
        rate = 16_000 if codec in ("g722", "libmp3lame") else 32_000
        found[f"wav of {codec}"] = of(codec, rate)
    for size in (0, 0xFFFFFFFF, 0x7FFFF000, 3_000_000, len(body) - 2):
        found[f"wav whose sound claims {size:#x} bytes"] = lambda n=size: wav(body, size=n)
    extensible = struct.pack("<HHI", 22, 16, 4) + struct.pack("<H", 1) + bytes.fromhex("000000001000800000aa00389b71")
    junk = random.Random(3).randbytes(300_000)
    return found | {
        "wav that claims no size itself": lambda: riff(fmt_chunk(), chunk(b"data", body), size=0),
        "wav that claims 4 GB itself": lambda: riff(fmt_chunk(), chunk(b"data", body), size=0xFFFFFFFF),
        "wav, extensible": lambda: wav(body, tag=0xFFFE, extra=extensible),
        "wav with unknown chunks before its sound": lambda: wav(
            body, before=chunk(b"wHaT", junk) + chunk(b"\0\xff~!", b"x")
        ),
        "wav with unknown chunks behind its sound": lambda: wav(body, after=chunk(b"wHaT", junk)),
        "wav with an unknown chunk first": lambda: riff(chunk(b"JUNK", junk), fmt_chunk(), chunk(b"data", body)),
        "wav with two formats": lambda: riff(fmt_chunk(), fmt_chunk(), chunk(b"data", body)),
        "wav with bad tags": lambda: wav(body, before=chunk(b"LIST", b"INFO" + chunk(b"INAM", b"\xff\xfe\xc3\x28"))),
        "wav with a page of tags": lambda: wav(body, before=chunk(b"LIST", b"INFO" + chunk(b"ICMT", b"a" * 99_999))),
        "wav with garbage at its end": lambda: wav(body) + junk,
        "wav cut in the middle of a sample": lambda: wav(body)[:-1],
        "wav with half a chunk at its end": lambda: wav(body) + b"LI",
        "wav with an ID3 tag at its end": lambda: wav(body, after=chunk(b"id3 ", id3(500))),
        "wav with zeros behind its end": lambda: wav(body) + bytes(10_000),
        "wav of no sound for a minute around the words": lambda: wav(bytes(32_000 * 30) + body + bytes(32_000 * 30)),
        "wav with an overdriven voice": lambda: wav((pcm.astype(int) * 3).clip(-32768, 32767).astype("<i2").tobytes()),
        "wav with an offset": lambda: wav((pcm // 2 + 8_000).astype("<i2").tobytes()),
        "wav, rf64": lambda: b"RF64" + b"\xff" * 4 + b"WAVE" + _ds64(len(body)) + fmt_chunk() + _endless(body),
    }


def _ds64(size: int) -> bytes:
    return chunk(b"ds64", struct.pack("<QQQI", size + 72, size, size // 2, 0))


def _endless(body: bytes) -> bytes:
    return b"data" + b"\xff" * 4 + body


def _odd_codecs() -> dict[str, Callable[[], bytes]]:
    """(container, codec, rate, layout, codec's options)"""
    table: list[tuple[str, str, int, str, dict[str, str]]] = [
        ("mp3", "libmp3lame", 8_000, "mono", {"b": "16000"}),
        ("mp3", "libmp3lame", 11_025, "mono", {"b": "24000"}),
        ("mp3", "libmp3lame", 48_000, "stereo", {"b": "320000"}),
        ("mp3", "libmp3lame", 44_100, "stereo", {"q": "2"}),
        ("mp2", "mp2", 44_100, "stereo", {}),
        ("flac", "flac", 8_000, "mono", {}),
        ("flac", "flac", 192_000, "stereo", {}),
        ("flac", "flac", 48_000, "7.1", {}),
        ("flac", "flac", 16_000, "mono", {"frame_size": "65535"}),
        ("ogg", "libopus", 48_000, "mono", {"b": "8000"}),
        ("ogg", "libopus", 48_000, "5.1", {}),
        ("ogg", "libopus", 48_000, "7.1", {}),
        ("ogg", "vorbis", 48_000, "stereo", {}),
        ("ipod", "aac", 8_000, "mono", {}),
        ("ipod", "aac", 96_000, "stereo", {}),
        ("ipod", "aac", 48_000, "5.1", {}),
        ("ipod", "aac", 48_000, "7.1", {}),
        ("ipod", "alac", 96_000, "stereo", {}),
        ("mov", "pcm_s16be", 16_000, "mono", {}),
        ("mov", "adpcm_ima_qt", 44_100, "mono", {}),
        ("mov", "pcm_mulaw", 8_000, "mono", {}),
        ("adts", "aac", 16_000, "mono", {}),
        ("latm", "aac", 44_100, "mono", {}),
        ("amr", "libopencore_amrnb", 8_000, "mono", {"b": "12200"}),
        ("3gp", "libopencore_amrnb", 8_000, "mono", {"b": "7950"}),
        ("asf", "wmav1", 44_100, "mono", {"b": "64000"}),
        ("asf", "wmav2", 48_000, "stereo", {"b": "96000"}),
        ("ac3", "ac3", 48_000, "5.1", {}),
        ("eac3", "eac3", 48_000, "stereo", {}),
        ("wv", "wavpack", 44_100, "stereo", {}),
        ("tta", "tta", 44_100, "mono", {}),
        ("aiff", "pcm_s24be", 44_100, "stereo", {}),
        ("aiff", "pcm_f64be", 16_000, "mono", {}),
        ("aiff", "pcm_alaw", 8_000, "mono", {}),
        ("caf", "pcm_s24le", 44_100, "mono", {}),
        ("caf", "pcm_mulaw", 8_000, "mono", {}),
        ("au", "pcm_mulaw", 8_000, "mono", {}),
        ("au", "pcm_f32be", 44_100, "stereo", {}),
        ("w64", "pcm_s24le", 96_000, "stereo", {}),
        ("voc", "pcm_u8", 16_000, "mono", {}),
        ("flv", "libmp3lame", 44_100, "mono", {}),
        ("flv", "nellymoser", 22_050, "mono", {}),
        ("mpegts", "aac", 48_000, "mono", {}),
        ("mpeg", "mp2", 44_100, "mono", {}),
        ("matroska", "pcm_s16le", 16_000, "mono", {}),
        ("matroska", "ac3", 44_100, "stereo", {}),
        ("webm", "libopus", 48_000, "mono", {}),
        ("avi", "pcm_s16le", 16_000, "mono", {}),
        ("sox", "pcm_s32le", 16_000, "mono", {}),
    ]

    def of(container: str, codec: str, rate: int, layout: str, options: dict[str, str]) -> Callable[[], bytes]:
        return lambda: encode(speech(), container, codec, rate=rate, layout=layout, encoding=options)

    return {f"{row[0]} of {row[1]} at {row[2]} Hz in {row[3]} {row[4] or ''}".rstrip(): of(*row) for row in table}


def _odd_containers() -> dict[str, Callable[[], bytes]]:
    pcm = speech()
    junk = random.Random(4).randbytes(3_000).replace(b"\xff", b"\x7f")

    def mp3(**options: int | str) -> bytes:
        return encode(pcm, "mp3", "libmp3lame", **options)  # type: ignore[arg-type]

    def m4a(**muxing: str) -> bytes:
        return encode(pcm, "ipod", "aac", rate=44_100, muxing=muxing)

    def film(container: str, codec: str, video: str, rate: int = 48_000) -> Callable[[], bytes]:
        return lambda: encode(pcm, container, codec, rate=rate, video=video)

    half = len(pcm) // 2
    quiet_end = np.concatenate([pcm[: len(pcm) - 800], np.zeros(800, np.int16)])
    return {
        "mp3 with 3 MB of ID3": lambda: id3(3_000_000) + mp3(),
        "mp3 with bad ID3": lambda: id3(64, b"TIT2\0\0\0\x10\0\0\x03\xff\xfe\xc3\x28") + mp3(),
        "mp3 with two ID3 tags": lambda: id3(500) + id3(700) + mp3(),
        "mp3 behind 3,000 bytes of garbage": lambda: junk + mp3(),
        "mp3 behind zeros": lambda: bytes(2_000) + mp3(),
        "mp3 with ID3v1": lambda: mp3() + b"TAG" + b"x" * 125,
        "mp3 with an APE tag": lambda: mp3() + b"APETAGEX" + struct.pack("<IIII", 2000, 32, 0, 0) + bytes(8),
        "mp3 with garbage at its end": lambda: mp3() + junk,
        "mp3 whose rate and channels change": lambda: (
            encode(pcm[:half], "mp3", "libmp3lame", rate=16_000)
            + encode(pcm[half:], "mp3", "libmp3lame", rate=48_000, layout="stereo")
        ),
        "mp3 that is cut in a frame": lambda: mp3(rate=44_100)[:-100],
        "flac with an ID3 tag": lambda: id3(300) + encode(pcm, "flac", "flac"),
        "flac with garbage at its end": lambda: encode(pcm, "flac", "flac") + junk,
        "flac that says no length": lambda: _flac_without_length(encode(pcm, "flac", "flac")),
        "ogg, chained": lambda: (
            encode(pcm[:half], "ogg", "libopus", rate=48_000) + encode(pcm[half:], "ogg", "libopus", rate=48_000)
        ),
        "ogg with garbage at its end": lambda: encode(pcm, "ogg", "libopus", rate=48_000) + junk,
        "ogg without its last page": lambda: _without_last_page(encode(quiet_end, "ogg", "libopus", rate=48_000)),
        "m4a with its index at the end": m4a,
        "m4a with its index at the front": lambda: m4a(movflags="faststart"),
        "m4a in fragments": lambda: m4a(movflags="frag_keyframe+empty_moov+default_base_moof", frag_duration="300000"),
        "m4a for dash": lambda: m4a(movflags="dash+delay_moov", frag_duration="500000"),
        "m4a with a megabyte of nothing": lambda: m4a() + box(b"free", bytes(1 << 20)),
        "m4a with unknown boxes": lambda: m4a() + box(b"wHaT", junk) + box(b"\xa9xyz", b""),
        "m4a with garbage at its end": lambda: m4a() + junk,
        "m4a with 2,000 edits": lambda: with_edits(m4a(), 2_000),
        "webm as a browser records it": lambda: encode(pcm, "webm", "libopus", rate=48_000, muxing={"live": "1"}),
        "webm that is cut": lambda: encode(pcm, "webm", "libopus", rate=48_000, muxing={"live": "1"})[:-10],
        "film in mp4": film("mp4", "aac", "libx264"),
        "film in mov": film("mov", "aac", "mpeg4"),
        "film in matroska": film("matroska", "libopus", "libx264"),
        "film in webm": film("webm", "libopus", "libvpx"),
        "film in avi": film("avi", "libmp3lame", "mpeg4", 44_100),
        "film in mpegts": film("mpegts", "aac", "mpeg2video"),
        "film in mpeg": film("mpeg", "mp2", "mpeg2video"),
        "film in flv": film("flv", "libmp3lame", "flv1", 44_100),
        "film in asf": film("asf", "libmp3lame", "msmpeg4", 44_100),
        "aiff with garbage at its end": lambda: encode(pcm, "aiff", "pcm_s16be") + junk,
        "flac with a cover of 16,000 x 16,000": lambda: with_cover(encode(pcm, "flac", "flac"), png(16_000), 16_000),
        "flac with a cover that is no picture": lambda: with_cover(encode(pcm, "flac", "flac"), junk, 9),
        "amr with a cut frame": lambda: encode(pcm, "amr", "libopencore_amrnb", rate=8_000, encoding={"b": "12200"})[
            :-5
        ],
    }


def _flac_without_length(flac: bytes) -> bytes:
    """Its STREAMINFO knows neither the number of samples nor their sum."""
    return flac[:21] + bytes([flac[21] & 0xF0]) + bytes(20) + flac[42:]


def _without_last_page(ogg: bytes) -> bytes:
    return ogg[: ogg.rindex(b"OggS")]


# --- nobody speaks ---


def _silences() -> dict[str, Callable[[], bytes]]:
    generator = np.random.default_rng(8)
    seconds = 3
    time = np.arange(seconds * RATE) / RATE

    def of(signal: np.ndarray) -> Callable[[], bytes]:
        return lambda: wav(np.round(signal).astype("<i2").tobytes())

    def zeros(container: str, codec: str, rate: int = RATE, layout: str = "mono") -> Callable[[], bytes]:
        return lambda: encode(np.zeros(seconds * RATE, np.int16), container, codec, rate=rate, layout=layout)

    click = np.zeros(seconds * RATE)
    click[RATE] = 20_000
    opposite = np.stack([speech(), -speech().clip(-32767)], axis=1).astype("<i2").tobytes()
    nan = np.full(seconds * RATE, np.nan, "<f4").tobytes()
    return {
        "silence": of(np.zeros_like(time)),
        "silence of a tenth of a second": of(np.zeros(RATE // 10)),
        "silence of 8 bits": zeros("wav", "pcm_u8"),
        "silence in flac": zeros("flac", "flac"),
        "silence in mp3": zeros("mp3", "libmp3lame", 44_100, "stereo"),
        "silence in opus": zeros("ogg", "libopus", 48_000),
        "silence in m4a": zeros("ipod", "aac", 44_100),
        "silence in 7.1": zeros("wav", "pcm_s16le", 48_000, "7.1"),
        "silence with an offset": of(np.full_like(time, 9_000)),
        "silence of 20 minutes": lambda: silent_flac(1 / 3),
        "dither": of(generator.integers(-1, 2, time.size)),
        "hiss": of(generator.normal(0, 30, time.size)),
        "loud noise": of(generator.normal(0, 3_000, time.size)),
        "hum": of(300 * np.sin(2 * np.pi * 50 * time)),
        "tone": of(8_000 * np.sin(2 * np.pi * 440 * time)),
        "telephone's tone": of(4_000 * (np.sin(2 * np.pi * 350 * time) + np.sin(2 * np.pi * 440 * time))),
        "click": of(click),
        "full scale": of(np.full_like(time, 32_767)),
        "square wave": of(20_000 * np.sign(np.sin(2 * np.pi * 100 * time))),
        "two channels that cancel each other": lambda: wav(opposite, channels=2),
        "floats that are no numbers": lambda: wav(nan, tag=3, bits=32),
        "floats without end": lambda: wav(np.full(seconds * RATE, np.inf, "<f4").tobytes(), tag=3, bits=32),
    }


# --- bombs ---


def _bombs() -> Iterator[Row]:
    def m4a(samples: Pcm | None = None) -> bytes:
        return encode(speech() if samples is None else samples, "ipod", "aac", rate=44_100)

    lie = chunk(b"LIST", b"INFO" + chunk(b"ISFT", b"lie!", 0x7FFFFFE0), 0x7FFFFFF0)
    body = speech().astype("<i2").tobytes()
    yield "flac of 10 Hz", lambda: flac_of_rate(10), BROKEN, "10 Hz"
    yield "flac of 655,350 Hz", lambda: flac_of_rate(655_350), BROKEN, "655350 Hz"
    yield "flac of 655,350 Hz in 7.1", lambda: flac_of_rate(655_350, "7.1"), BROKEN, "655350 Hz"
    yield "wav of 1 Hz", lambda: wav(bytes(28_800), rate=1), BROKEN, "1 Hz"
    yield "wav of 0 Hz", lambda: wav(bytes(28_800), rate=0), BROKEN, "WAV file is broken"
    yield "wav of 4 GHz", lambda: wav(bytes(28_800), rate=0xFFFFFFFF), BROKEN, "WAV"
    yield "wav with 65 channels", lambda: wav(interleaved(speech()[:1600], 65), channels=65), BROKEN, "65 channels"
    yield "wav with 65,535 channels", lambda: wav(bytes(400_000), channels=65_535, bits=8), BROKEN, "WAV"
    yield "wav whose tag claims 2 GB", lambda: wav(body, before=lie), BROKEN, "claims to be larger"
    many = chunk(b"wHaT", b"") * 5_000
    yield "wav whose tag claims 2 GB behind 5,000 chunks", lambda: riff(fmt_chunk(), many, lie), BROKEN, ""
    yield "wav whose tag claims 2 GB, small", lambda: riff(lie), BROKEN, "claims to be larger"
    yield "avi whose tag claims 2 GB", lambda: riff(lie, form=b"AVI "), BROKEN, "claims to be larger"
    yield "m4a of 1,000 hours in one chunk", lambda: with_chunks(m4a(), 288_000, 140), BROKEN, ""
    yield "silence of 5 hours in 60 kB", lambda: silent_flac(5), LONG, "the limit is"
    yield "wav of 5 hours that claims nothing", lambda: wav(bytes(16_000 * 3600 * 5 // 4), rate=4_000, bits=8), LONG, ""


# --- broken ---


def _broken() -> Iterator[Row]:
    whole: dict[str, tuple[bytes, tuple[int, ...], str]] = {
        "WAV": (wav(speech().astype("<i2").tobytes()), (12, 20, 36, 43, 44), BROKEN),
        "FLAC": (encode(speech(), "flac", "flac"), (4, 8, 41, 42, 86), BROKEN),
        "Ogg": (encode(speech(), "ogg", "libopus", rate=48_000), (4, 27, 47, 90), BROKEN),
        "MP4": (encode(speech(), "ipod", "aac", rate=44_100), (8, 28, 40, 8_000), BROKEN),
        "Matroska": (encode(speech(), "matroska", "libopus", rate=48_000), (4, 12, 40, 200), BROKEN),
        "AIFF": (encode(speech(), "aiff", "pcm_s16be"), (12, 30, 46), BROKEN),
        "CAF": (encode(speech(), "caf", "pcm_s16be"), (8, 30, 52), BROKEN),
        "AU": (encode(speech(), "au", "pcm_s16be"), (4, 20), BROKEN),
        "AVI": (encode(speech(), "avi", "libmp3lame", rate=44_100), (12, 40, 200), BROKEN),
        "ASF": (encode(speech(), "asf", "wmav2", rate=44_100, encoding={"b": "64000"}), (16, 100, 400), BROKEN),
        "AMR": (encode(speech(), "amr", "libopencore_amrnb", rate=8_000, encoding={"b": "12200"}), (6,), BROKEN),
        "MP3": (encode(speech(), "mp3", "libmp3lame"), (4, 10, 45), BROKEN),
        "AAC": (encode(speech(), "adts", "aac"), (4, 7), BROKEN),
    }
    for container, (content, cuts, expected) in whole.items():
        for cut in cuts:
            yield f"{container}'s first {cut} bytes", lambda c=content, n=cut: c[:n], expected, container
    noise = random.Random(5).randbytes(40_000)
    for magic, name in (
        (b"fLaC", "FLAC"),
        (b"OggS", "Ogg"),
        (b"caff\0\1\0\0", "CAF"),
        (b"\x1a\x45\xdf\xa3", "Matroska"),
    ):
        yield f"{name}'s magic and noise", lambda m=magic: m + noise, BROKEN, name
    yield "wav of a codec that nobody has", lambda: wav(noise, tag=0x7777), UNKNOWN, "coded in a way"
    yield "wav without a format", lambda: riff(chunk(b"data", noise)), BROKEN, "WAV"
    yield "wav without sound", lambda: riff(fmt_chunk()), BROKEN, "WAV"
    yield "wav with no samples", lambda: wav(b""), BROKEN, "WAV"
    yield "wav of a twentieth of a second", lambda: wav(bytes(1_600)), SHORT, "0.1 seconds"
    yield "wav of one sample", lambda: wav(b"\1\0"), SHORT, "0.1 seconds"
    yield "mp3 tag alone", lambda: id3(1_000), BROKEN, "MP3"
    yield "mp3 tag and noise", lambda: id3(100) + noise.replace(b"\xff", b"\0"), BROKEN, "MP3"
    yield "nothing", lambda: b"", BROKEN, "empty"
    yield "a zero byte", lambda: b"\0", UNKNOWN, "no audio or video format"
    yield "zeros", lambda: bytes(100_000), UNKNOWN, "no audio or video format"
    yield "noise", lambda: random.Random(6).randbytes(100_000), UNKNOWN, "no audio or video format"
    yield "ones", lambda: b"\xff" * 50_000, UNKNOWN, "no audio or video format"
    for container, codec in (("mp4", "libx264"), ("matroska", "mpeg4"), ("avi", "mpeg4"), ("webm", "libvpx")):
        yield (
            f"{container} without a sound track",
            lambda c=container, v=codec: pictures(c, v),
            UNKNOWN,
            "no sound track",
        )


# --- something else ---


def _strangers() -> Iterator[Row]:
    def zipped() -> bytes:
        target = io.BytesIO()
        with zipfile.ZipFile(target, "w") as archive:
            archive.writestr(zipfile.ZipInfo("a.wav"), wav(bytes(9_000)))
        return target.getvalue()

    def tarred() -> bytes:
        target = io.BytesIO()
        with tarfile.open(fileobj=target, mode="w") as archive:
            entry = tarfile.TarInfo("a.wav")
            entry.size = 9_000
            archive.addfile(entry, io.BytesIO(bytes(9_000)))
        return target.getvalue()

    def database() -> bytes:
        with sqlite3.connect(":memory:") as connection:
            connection.execute("create table a (b)")
            content = connection.serialize()
        connection.close()
        return content

    def gif() -> bytes:
        target = io.BytesIO()
        with av.open(target, "w", format="gif") as output:
            stream = output.add_stream("gif", rate=5, width=16, height=16, pix_fmt="rgb8")
            output.mux(stream.encode(av.VideoFrame(16, 16, "rgb8")))
            output.mux(stream.encode(None))
        return target.getvalue()

    noise = random.Random(7).randbytes(4_000)
    for name, make, finding in (
        ("png", lambda: png(64), "a PNG image"),
        ("jpeg", lambda: b"\xff\xd8\xff\xe0\x00\x10JFIF\0\1\1" + noise, "a JPEG image"),
        ("gif", gif, "a GIF image"),
        ("webp", lambda: riff(b"VP8 " + noise, form=b"WEBP"), "a WebP image"),
        ("heic", lambda: box(b"ftyp", b"heic\0\0\0\0mif1heic") + noise, "a HEIC image"),
        ("avif", lambda: box(b"ftyp", b"avif\0\0\0\0avifmif1") + noise, "an AVIF image"),
        ("tiff", lambda: b"II*\0" + noise, "a TIFF image"),
        ("zip", zipped, "a ZIP archive"),
        ("gzip", lambda: gzip.compress(noise, mtime=0), "a gzip archive"),
        ("bzip2", lambda: bz2.compress(noise), "a bzip2 archive"),
        ("xz", lambda: lzma.compress(noise), "an xz archive"),
        ("tar", tarred, "a tar archive"),
        ("7z", lambda: b"7z\xbc\xaf\x27\x1c" + noise, "a 7-Zip archive"),
        ("rar", lambda: b"Rar!\x1a\x07\x01\0" + noise, "a RAR archive"),
        ("pdf", lambda: b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n" + noise, "a PDF document"),
        ("office", lambda: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + noise, "an old office document"),
        ("sqlite", database, "an SQLite database"),
        ("elf", lambda: b"\x7fELF\2\1\1" + noise, "a program"),
        ("exe", lambda: b"MZ\x90\0" + noise, "a Windows program"),
        ("midi", lambda: b"MThd\0\0\0\6\0\0\0\1\0\x60MTrk" + noise, "a MIDI file"),
        ("rmid", lambda: riff(chunk(b"data", b"MThd" + noise), form=b"RMID"), "a MIDI file"),
    ):
        yield name, make, UNKNOWN, finding


def _texts() -> Iterator[Row]:
    for name, content, finding in (
        ("text", b"Hello, this is my recording.\n", "a text file"),
        (
            "text of letters that are not ASCII",
            "Ceci est un fichier d\u2019\u00e9t\u00e9: \u4f60\u597d\n".encode() * 40,
            "a text file",
        ),
        ("text in UTF-16", "Hello, this is my recording.".encode("utf-16"), "a text file"),
        ("text with a mark", b"\xef\xbb\xbfHello", "a text file"),
        ("a table", b"start,end,text\n0,1,hello\n" * 99, "a text file"),
        ("a program's text", b"#!/bin/sh\ncat /etc/passwd\n", "a text file"),
        ("html", b"<!DOCTYPE html><html><body>404</body></html>", "an HTML page"),
        ("html in capitals", b"\n\n  <HTML><head></head></HTML>", "an HTML page"),
        ("xml", b'<?xml version="1.0"?><a/>', "an XML document"),
        ("svg", b'<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG image"),
        ("json", b'{"error": "not found"}', "a JSON document"),
        ("subtitles", b"1\n00:00:00,000 --> 00:00:01,000\nHello\n", "a subtitle file"),
        ("webvtt", b"WEBVTT\n\n00:00.000 --> 00:01.000\nHello\n", "a subtitle file"),
        ("a link", b"https://example.invalid/a.mp3", "a link"),
        ("a data url", b"data:audio/wav;base64,UklGRg==", "a data URL"),
        ("metadata", b";FFMETADATA1\ntitle=x\n", "a metadata file"),
        ("m3u", b"#EXTM3U\n/etc/passwd\n", "an M3U playlist"),
        ("m3u8", b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n", "an M3U playlist"),
        ("pls", b"[playlist]\nFile1=/etc/passwd\n", "a PLS playlist"),
        ("ffconcat", b"ffconcat version 1.0\nfile etc/passwd\n", "a list of other files"),
        ("sdp", b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nm=audio 9 RTP/AVP 0\r\n", "an SDP session"),
        ("dash", b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"/>', "an XML document"),
        ("xspf", b'<?xml version="1.0"?><playlist xmlns="http://xspf.org/ns/0/"/>', "an XML document"),
        ("asx", b'<asx version="3.0"><entry><ref href="/etc/passwd"/></entry></asx>', "an XML document"),
        ("concat protocol", b"concat:/etc/passwd|/etc/group", "a text file"),
        ("subfile protocol", b"subfile,,start,0,end,9,,:/etc/passwd", "a text file"),
    ):
        yield name, lambda c=content: c, UNKNOWN, finding
    for name, content in (
        ("ffconcat with a bad byte", b"ffconcat version 1.0\nfile etc/passwd\n# \xff is no text\n"),
        ("m3u8 with a bad byte", b"#EXTM3U\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n# \xff is no text\n"),
        ("sdp with a bad byte", b"v=0\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nm=audio 9 RTP/AVP 0\r\n\xff bad"),
        ("dash with a bad byte", b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011">\xff</MPD>'),
    ):
        yield name, lambda c=content: c, UNKNOWN, "no audio or video format"
