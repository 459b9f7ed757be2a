"""The server's words against the same library called directly on the same files, and the two backends' against each
other.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from app import backends, convert
from app.backends.base import openblas_preload
from app.catalog import MICRO_FOLDER
from tests.conftest import Clip, Recording, Server, StartServer, clips, join_clips, word_error_rate

#: A server that cuts and batches may differ from the library by this much (word errors a word).
TOLERANCE = 0.015

needs_mlx = pytest.mark.skipif(find_spec("mlx_whisper") is None, reason="mlx-whisper is not installed")


def by_the_library(backend: str, cache: Path, files: list[str]) -> list[str]:
    """The texts of ``benchmarks.library`` in a process of its own (one library a process, and MLX wants its BLAS)."""
    format_ = backends.BACKENDS[backend].format
    assert format_ is not None
    folder = convert.ensure(MICRO_FOLDER, format_, cache)
    preload = openblas_preload() if backend == "mlx-whisper" else None
    environment = {**os.environ, **({"LD_PRELOAD": preload} if preload else {})}
    command = [sys.executable, "-m", "benchmarks.library", backend, str(folder), *files]
    output = subprocess.run(command, capture_output=True, check=True, text=True, env=environment).stdout
    return [json.loads(line)["text"] for line in output.splitlines()]


def by_the_server(server: Server, parts: list[Clip]) -> list[str]:
    answers = [server.transcribe(clip.path, language=clip.language) for clip in parts]
    return [answer.json()["text"] for answer in answers]


@pytest.fixture(scope="module")
def five_minutes(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """Five minutes of English: the clips in turn, with pauses of a breath."""
    parts = clips("en") * 2
    return join_clips(parts[:79], tmp_path_factory.mktemp("five") / "five-minutes.wav", gap_s=0.45)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def mlx_server(start_server: StartServer) -> Server:
    return start_server(backend="mlx-whisper", model="micro")


def test_single_clips_have_no_more_word_errors_than_the_library(server: Server, cache: Path) -> None:
    parts = clips()[::2]
    library = by_the_library("faster-whisper", cache, [f"{clip.path}:{clip.language}" for clip in parts])
    references = [clip.text for clip in parts]
    ours = word_error_rate(references, by_the_server(server, parts))
    theirs = word_error_rate(references, library)
    assert ours <= theirs + TOLERANCE, f"{ours:.3f} against {theirs:.3f}"


def test_five_minutes_have_no_more_word_errors_than_the_library(
    server: Server, cache: Path, five_minutes: Recording
) -> None:
    (library,) = by_the_library("faster-whisper", cache, [f"{five_minutes.path}:en"])
    answer = server.transcribe(five_minutes.path, language="en", response_format="verbose_json").json()
    ours = word_error_rate([five_minutes.text], [answer["text"]])
    theirs = word_error_rate([five_minutes.text], [library])
    assert ours <= theirs + TOLERANCE, f"{ours:.3f} against {theirs:.3f}"
    assert ours <= 0.05, "nothing is lost at the cuts"
    times = [(segment["start"], segment["end"]) for segment in answer["segments"]]
    assert times == sorted(times)
    assert times[-1][1] <= answer["duration"] == pytest.approx(five_minutes.duration, abs=0.05)


@needs_mlx
@pytest.mark.mlx
def test_mlx_has_no_more_word_errors_than_its_library_and_agrees_with_faster_whisper(
    server: Server, mlx_server: Server, cache: Path
) -> None:
    parts = [*clips("en00")[:4], clips("de000")[0], clips("es000")[0]]
    library = by_the_library("mlx-whisper", cache, [f"{clip.path}:{clip.language}" for clip in parts])
    references = [clip.text for clip in parts]
    ours = by_the_server(mlx_server, parts)
    assert word_error_rate(references, ours) <= word_error_rate(references, library) + TOLERANCE
    assert word_error_rate(by_the_server(server, parts), ours) <= 0.05


@needs_mlx
@pytest.mark.mlx
def test_mlx_loses_nothing_of_a_recording_of_several_windows(
    server: Server, mlx_server: Server, tmp_path: Path
) -> None:
    recording = join_clips(clips("en")[:16], tmp_path / "minute.wav")
    answers = [each.transcribe(recording.path, language="en").json()["text"] for each in (mlx_server, server)]
    assert word_error_rate([recording.text], answers[:1]) <= 0.05
    assert word_error_rate(answers[1:], answers[:1]) <= 0.03, "the two backends agree"
