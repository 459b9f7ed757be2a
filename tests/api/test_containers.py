"""Every container that people send gives its sound track, whatever its name and content type say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import httpx
import pytest
from av.audio.frame import AudioFrame
from av.video.frame import VideoFrame

from tests.conftest import Server, clips, word_error_rate

CLIP = clips("en000")[0]


@dataclass(frozen=True)
class Kind:
    """A file to make with PyAV: container, codec and what that codec wants; ``video`` adds a picture track."""

    suffix: str
    container: str
    codec: str
    rate: int = 16_000
    layout: str = "mono"
    video: str = ""
    #: Options of the container, and of the codec.
    muxing: tuple[tuple[str, str], ...] = ()
    encoding: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return f"{self.suffix}-{self.codec}{'-with-pictures' if self.video else ''}"


#: OpenAI's list (flac, mp3, mp4, mpeg, mpga, m4a, ogg, wav, webm), then what phones, recorders and archives make.
KINDS = [
    Kind("wav", "wav", "pcm_s16le"),
    Kind("wav", "wav", "pcm_f32le", rate=48_000, layout="stereo"),
    Kind("flac", "flac", "flac"),
    Kind("mp3", "mp3", "libmp3lame", rate=44_100, layout="stereo"),
    Kind("mpga", "mp3", "libmp3lame"),
    Kind("mpga", "mp2", "mp2"),
    Kind("mpeg", "mpeg", "mp2", rate=44_100),
    Kind("mpeg", "mpeg", "mp2", rate=44_100, video="mpeg2video"),
    Kind("m4a", "ipod", "aac", rate=44_100),
    Kind("m4a", "ipod", "alac"),
    Kind("mp4", "mp4", "aac", rate=44_100),
    Kind("mp4", "mp4", "aac", rate=44_100, layout="stereo", video="libx264"),
    # As a browser on iOS records: the index in pieces, between the sound.
    Kind("mp4", "mp4", "aac", muxing=(("movflags", "frag_keyframe+empty_moov+default_base_moof"),)),
    Kind("mov", "mov", "aac", rate=44_100, video="mpeg4"),
    Kind("ogg", "ogg", "vorbis", rate=44_100, layout="stereo", encoding=(("strict", "experimental"),)),
    Kind("ogg", "ogg", "libopus", rate=48_000),
    Kind("opus", "opus", "libopus", rate=48_000),
    Kind("webm", "webm", "libopus", rate=48_000),
    # As a browser's MediaRecorder writes it: neither duration nor index.
    Kind("webm", "webm", "libopus", rate=48_000, muxing=(("live", "1"),)),
    Kind("webm", "webm", "libopus", rate=48_000, video="libvpx"),
    Kind("mkv", "matroska", "ac3", rate=48_000, video="libx264"),
    Kind("aac", "adts", "aac", rate=44_100),
    Kind("caf", "caf", "pcm_s16le"),
    Kind("caf", "caf", "alac"),
    Kind("aiff", "aiff", "pcm_s16be"),
    Kind("amr", "amr", "libopencore_amrnb", rate=8_000, encoding=(("b", "12200"),)),
    Kind("3gp", "3gp", "libopencore_amrnb", rate=8_000, encoding=(("b", "12200"),)),
    Kind("wma", "asf", "wmav2", rate=44_100, encoding=(("b", "64000"),)),
    Kind("avi", "avi", "libmp3lame", rate=44_100, video="mpeg4"),
    Kind("ts", "mpegts", "aac", rate=44_100),
    Kind("w64", "w64", "pcm_s16le"),
    Kind("au", "au", "pcm_s16be"),
]


def encode(kind: Kind, path: Path) -> Path:
    """Write the clip to ``path`` as ``kind``. PyAV's wheels bring every encoder here; one that is missing fails."""
    with (
        av.open(str(CLIP.path)) as source,
        av.open(str(path), "w", format=kind.container, container_options=dict(kind.muxing)) as target,
    ):
        video = target.add_stream(kind.video, rate=25, options={"g": "10"}) if kind.video else None
        if video is not None:
            video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        sound = target.add_stream(kind.codec, rate=kind.rate, layout=kind.layout, options=dict(kind.encoding))
        if video is not None:
            for number in range(int(25 * CLIP.duration)):
                picture = VideoFrame(64, 64, "yuv420p")
                picture.pts = number
                target.mux(video.encode(picture))
            target.mux(video.encode(None))
        sample_format = sound.codec_context.format
        resampler = av.AudioResampler(sample_format, kind.layout, kind.rate, sound.codec_context.frame_size or 1024)
        for frame in resampled(source.decode(audio=0), resampler):
            target.mux(sound.encode(frame))
        target.mux(sound.encode(None))
    return path


def resampled(frames: Iterator[AudioFrame], resampler: av.AudioResampler) -> Iterator[AudioFrame]:
    for frame in frames:
        yield from resampler.resample(frame)
    yield from resampler.resample(None)


def post(server: Server, content: bytes, name: str | None, content_type: str | None) -> httpx.Response:
    file = (name, content, content_type) if content_type else (name, content)
    return httpx.post(f"{server.url}/v1/audio/transcriptions", files={"file": file}, timeout=60)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_sound_of_every_container_is_transcribed(server: Server, tmp_path: Path, kind: Kind) -> None:
    file = encode(kind, tmp_path / f"clip.{kind.suffix}")
    response = server.transcribe(file, response_format="verbose_json", language="en")
    assert response.status_code == 200, response.text
    assert word_error_rate([CLIP.text], [response.json()["text"]]) <= 0.2
    assert response.json()["duration"] == pytest.approx(CLIP.duration, abs=0.2)
    assert "x-whisperd-warning" not in response.headers


def test_of_a_damaged_file_the_answer_says_what_is_missing(server: Server, tmp_path: Path) -> None:
    flac = encode(Kind("flac", "flac", "flac"), tmp_path / "clip.flac")
    flac.write_bytes(flac.read_bytes()[: flac.stat().st_size // 3])
    response = server.transcribe(flac, language="en")
    assert response.status_code == 200
    said = response.headers["x-whisperd-warning"]
    missing = re.match(r"About (\S+) s of the recording are missing", said)
    assert missing, said
    assert 1 < float(missing[1]) < CLIP.duration


WRONG_LABELS = [
    ("upload", "application/octet-stream"),
    ("unknown_file", None),
    ("audio.wav", "audio/wav"),
    ("audio.mp3", "audio/mpeg"),
    ("blob", "text/plain"),
    ("../../etc/ü x.m4a", "image/png"),
    ("clip.m3u8", "application/vnd.apple.mpegurl"),
]


@pytest.mark.parametrize(("name", "content_type"), WRONG_LABELS, ids=[name for name, _ in WRONG_LABELS])
@pytest.mark.parametrize(
    "kind", [Kind("webm", "webm", "libopus", rate=48_000), Kind("m4a", "ipod", "aac", rate=44_100)], ids=str
)
def test_the_bytes_are_believed_and_not_the_label(
    server: Server, tmp_path: Path, kind: Kind, name: str, content_type: str | None
) -> None:
    response = post(server, encode(kind, tmp_path / "clip").read_bytes(), name, content_type)
    assert response.status_code == 200, response.text
    assert word_error_rate([CLIP.text], [response.json()["text"]]) <= 0.2


def test_pictures_without_sound_are_a_400_that_says_so(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "silent.mp4"
    with av.open(str(path), "w") as target:
        video = target.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        for number in range(25):
            picture = VideoFrame(64, 64, "yuv420p")
            picture.pts = number
            target.mux(video.encode(picture))
        target.mux(video.encode(None))
    response = server.transcribe(path)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "unsupported_audio")
