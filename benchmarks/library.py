"""A library called directly on files, without whisperd: what the server's texts and times are held against.

    python -m benchmarks.library faster-whisper MODEL_FOLDER FILE...     prints a JSON line for each file: text, seconds

``FILE`` may end in ``:en`` to name its language; else the library detects it. Without any, one JSON line
``{"ready": true}`` is printed once the model is loaded, and each line of the standard input, ``[file, language]``,
is answered by such a line as above: so ``Library`` keeps the library warm in a process of its own.

Which way it is loaded and called is one of ``LIBRARIES``. This module imports nothing heavy and nothing of whisperd at
its top: what a process takes that runs it is what the library takes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: A file's path and the code of its language, or None to detect it; returns the text.
Call = Callable[[str, str | None], str]


class Answer(NamedTuple):
    """A recording's text, and the seconds from the call to its end."""

    text: str
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", choices=LIBRARIES)
    parser.add_argument("folder", help="the model in the library's own format")
    parser.add_argument("files", nargs="*", metavar="FILE")
    parser.add_argument("--beam-size", type=int, default=1)
    options = parser.parse_args()
    call = LIBRARIES[options.library](options.folder, options.beam_size)
    for path, language in _named(options.files) if options.files else _asked():
        started = time.perf_counter()
        text = call(path, language)
        print(json.dumps({"text": text, "seconds": time.perf_counter() - started}), flush=True)


def _named(files: list[str]) -> Iterator[tuple[str, str | None]]:
    for argument in files:
        path, _, language = argument.partition(":")
        yield path, language or None


def _asked() -> Iterator[tuple[str, str | None]]:
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        path, language = json.loads(line)
        yield path, language


def faster_whisper(folder: str, beam_size: int) -> Call:
    """Loaded as whisperd loads it, with the library's own temperature ladder; no previous text is fed back."""
    return _calling(_loaded("faster-whisper", folder), beam_size=beam_size, condition_on_previous_text=False)


def faster_whisper_vad(folder: str, beam_size: int) -> Call:
    """The same, and the library finds the speech itself, as whisperd does."""
    model = _loaded("faster-whisper", folder)
    return _calling(model, beam_size=beam_size, condition_on_previous_text=False, vad_filter=True)


def faster_whisper_plain(folder: str, beam_size: int) -> Call:
    """Loaded and called as the library's README says, on all cores; every other option is its own default."""
    from faster_whisper import WhisperModel

    model = WhisperModel(folder, device="cpu", compute_type="int8", cpu_threads=os.cpu_count() or 0)
    return _calling(model, beam_size=beam_size)


def _calling(model: Any, **how: Any) -> Call:
    def call(path: str, language: str | None) -> str:
        segments, _ = model.transcribe(path, language=language, **how)
        return "".join(segment.text for segment in segments)

    return call


def mlx_whisper(folder: str, beam_size: int) -> Call:
    """Loaded as whisperd loads it, greedy, with the library's own temperature ladder; no previous text is fed back."""
    assert beam_size == 1, "mlx-whisper has no beams"
    import mlx.core as mx

    from benchmarks.recordings import samples

    model = _loaded("mlx-whisper", folder)
    call = on_samples(model, folder, half=mx.default_device() != mx.Device(mx.cpu))
    # Its own loader of files needs an ffmpeg binary.
    return lambda path, language: call(samples(Path(path)), language)


def on_samples(model: Any, folder: str, *, half: bool) -> Callable[[NDArray[np.int16], str | None], str]:
    """``mlx_whisper.transcribe`` with a loaded ``model`` of ``folder``, in float16 if ``half``, on 16 kHz samples."""
    import mlx_whisper
    import numpy as np
    from mlx_whisper.transcribe import ModelHolder

    # Its own holder of models is filled with the one that is loaded.
    ModelHolder.model, ModelHolder.model_path = model, folder

    def call(sound: NDArray[np.int16], language: str | None) -> str:
        result = mlx_whisper.transcribe(
            sound.astype(np.float32) / np.float32(32768),
            path_or_hf_repo=folder,
            language=language,
            condition_on_previous_text=False,
            fp16=half,
        )
        return str(result["text"])

    return call


#: Ways to load and call a library: the model's folder and the beams of its search.
LIBRARIES: dict[str, Callable[[str, int], Call]] = {
    "faster-whisper": faster_whisper,
    "faster-whisper-vad": faster_whisper_vad,
    "faster-whisper-plain": faster_whisper_plain,
    "mlx-whisper": mlx_whisper,
}


class Library:
    """``name`` of ``LIBRARIES`` in a process of its own, warm and idle until it is asked. One caller at a time."""

    def __init__(self, name: str, folder: Path, *, beam_size: int = 1) -> None:
        self._command = [sys.executable, "-m", "benchmarks.library", name, str(folder), "--beam-size", str(beam_size)]
        self._environment = {**os.environ, **(_preload() if name == "mlx-whisper" else {})}
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Library:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=self._environment
        )
        self._reply()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.communicate()  # the end of its input is the end of it

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    def transcribe(self, path: Path, language: str | None = None) -> Answer:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([str(path), language]) + "\n")
        self._process.stdin.flush()
        return Answer(**self._reply())

    def _reply(self) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("the library's process ended")
        reply: dict[str, Any] = json.loads(line)
        return reply


def folder_of(model: str, backend: str) -> Path:
    """The folder of ``model`` (``micro`` or a folder) in the format of ``backend``, converted where it must be."""
    from app import backends, convert
    from app.catalog import MICRO_FOLDER
    from app.settings import load_settings

    format_ = backends.BACKENDS[backend].format
    assert format_ is not None
    source = MICRO_FOLDER if model == "micro" else Path(model)
    return convert.ensure(source, format_, load_settings().cache_dir)


def _preload() -> dict[str, str]:
    from app.backends.base import openblas_preload

    library = openblas_preload()
    return {"LD_PRELOAD": library} if library else {}


def _loaded(name: str, folder: str) -> Any:
    """The library's model, loaded by whisperd's backend: with its precision and threads."""
    from app import backends
    from app.backends.base import LoadOptions

    backend: Any = backends.create(name)
    backend.load(folder, LoadOptions())
    return backend._model


if __name__ == "__main__":
    main()
