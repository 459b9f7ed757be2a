"""A library called directly on files, without whisperd: what the server's texts and times are held against.

    python -m benchmarks.library faster-whisper MODEL_FOLDER FILE...     prints a JSON line for each file: text, seconds

Greedy with the library's own temperature ladder, no previous text fed back, precision and threads as whisperd loads
the model.
``FILE`` may end in ``:en`` to name its language; else the library detects it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

Call = Callable[[str, str | None], str]


def main(arguments: list[str]) -> None:
    name, folder, *files = arguments
    call = LIBRARIES[name](folder)
    for argument in files:
        path, _, language = argument.partition(":")
        started = time.perf_counter()
        text = call(path, language or None)
        print(json.dumps({"text": text, "seconds": time.perf_counter() - started}), flush=True)


def faster_whisper(folder: str) -> Call:
    model = _loaded("faster-whisper", folder)._model

    def call(path: str, language: str | None) -> str:
        segments, _ = model.transcribe(path, language=language, beam_size=1, condition_on_previous_text=False)
        return "".join(segment.text for segment in segments)

    return call


def mlx_whisper(folder: str) -> Call:
    import av
    import mlx.core as mx
    import mlx_whisper
    import numpy as np
    from mlx_whisper.transcribe import ModelHolder

    # Its own loader of files needs an ffmpeg binary; its own holder of models is filled with the one that is loaded.
    ModelHolder.model, ModelHolder.model_path = _loaded("mlx-whisper", folder)._model, folder

    def call(path: str, language: str | None) -> str:
        with av.open(path) as container:
            resampler = av.AudioResampler("s16", "mono", 16_000)
            parts = [part.to_ndarray()[0] for frame in container.decode(audio=0) for part in resampler.resample(frame)]
        audio = np.concatenate(parts).astype(np.float32) / 32768
        result = mlx_whisper.transcribe(
            audio,
            path_or_hf_repo=folder,
            language=language,
            condition_on_previous_text=False,
            fp16=mx.default_device() != mx.Device(mx.cpu),
        )
        return str(result["text"])

    return call


LIBRARIES: dict[str, Callable[[str], Call]] = {"faster-whisper": faster_whisper, "mlx-whisper": mlx_whisper}


def _loaded(name: str, folder: str) -> Any:
    from app import backends
    from app.backends.base import LoadOptions

    backend = backends.create(name)
    backend.load(folder, LoadOptions())
    return backend


if __name__ == "__main__":
    main(sys.argv[1:])
