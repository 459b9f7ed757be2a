"""The backends: installed, and able to transcribe the sample on the device that they should."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app.backends import BACKENDS, installed
from app.doctor.check import Check, failed, ok, skipped, warning
from app.errors import WhisperdError
from app.hardware import Hardware
from app.model_names import MICRO
from app.recordings import SAMPLE
from app.settings import Settings
from app.transcriber import Transcriber
from app.transcript import Options
from app.word_errors import differing, words_of

#: What is said in the sample, which micro understands.
SAMPLE_TEXT = SAMPLE.with_suffix(".txt")
#: Torch takes seconds to import from a cold disk.
_TORCH_S = 120
_REINSTALL_TORCH = "Reinstall it with: pip install --force-reinstall torch"
#: Torch's own upper mark of the memory that MPS takes, as a share of what the Mac recommends, and the most it takes.
_HIGH_WATERMARK, _MOST_WATERMARK = 1.7, 2.0
#: What torch says of itself, and of the environment that it was started in.
_ASK_TORCH = """\
import json, os, torch
mps, said = torch.backends.mps, os.environ.get
print(json.dumps({
    "version": torch.__version__, "built": mps.is_built(), "available": mps.is_available(),
    "cuda": torch.cuda.is_available(), "fallback": said("PYTORCH_ENABLE_MPS_FALLBACK"),
    "high": said("PYTORCH_MPS_HIGH_WATERMARK_RATIO"), "low": said("PYTORCH_MPS_LOW_WATERMARK_RATIO"),
}))
"""


def check_backends(settings: Settings, hardware: Hardware, *, quick: bool) -> Iterator[Check]:
    """``quick`` leaves out the transcriptions."""
    for name, backend in BACKENDS.items():
        if backend.library is None:
            continue
        chosen = name == settings.backend
        if not installed(name):
            grade = failed if chosen else warning if name in settings.fallbacks else skipped
            yield grade(name, "Not installed.", f"Install it with: {backend.install}")
        elif quick:
            yield ok(name, "Installed; not tried.")
        else:
            yield _tried(name, settings, hardware, chosen=chosen)
    if installed("openai-whisper"):
        yield from check_torch(hardware, ask_torch())


def _tried(name: str, settings: Settings, hardware: Hardware, *, chosen: bool) -> Check:
    """Its worker, the real one, transcribes the sample with micro."""
    remedy = f"Reinstall it with: {BACKENDS[name].install}"
    with tempfile.TemporaryDirectory() as folder:
        # Folders of its own: a server that runs keeps its state, and what is wrong with the cache is another check's.
        folders = {"state_dir": Path(folder, "state"), "cache_dir": Path(folder, "cache")}
        update: dict[str, Any] = {"backend": name, "model": MICRO, "fallback": "", **folders}
        if not chosen:
            update |= {"device": "auto", "precision": "default"}
        started = time.monotonic()
        try:
            with Transcriber(settings.model_copy(update=update)) as transcriber:
                text = transcriber.run(SAMPLE, Options(language="en")).transcript
                info = transcriber.worker.info
        except WhisperdError as error:
            return failed(name, error.message, remedy) if chosen else warning(name, error.message, remedy)
    assert text is not None
    assert info is not None
    seconds = time.monotonic() - started
    done = f"Transcribed the sample on {info.device} ({info.precision}) in {seconds:.1f} s, load included"
    if differing(words_of(SAMPLE_TEXT.read_text("utf-8")), words_of(text.text)):
        found = f"{done}, but not as it was spoken: {text.text[:80]!r}."
        return failed(
            name, found, f"Try --device cpu; if that is right, the GPU's driver or build of {name} is to blame."
        )
    if info.device == "cpu" and (gpu := _unused_gpu(name, hardware)):
        return warning(name, f"{done}: the {gpu} was not used.", _gpu_remedy(name, settings))
    return ok(name, f"{done}.")


def _unused_gpu(name: str, hardware: Hardware) -> str:
    """The GPU that this backend could have used."""
    if hardware.apple_silicon and name != "faster-whisper":  # CTranslate2 has no Metal
        return "Mac's GPU"
    return hardware.nvidia if name in ("faster-whisper", "openai-whisper") else ""


def _gpu_remedy(name: str, settings: Settings) -> str:
    if settings.device == "cpu" and name == settings.backend:
        return "The setting `device` says cpu; leave it at auto."
    return f"Install a build of {name} for the GPU (docs/backends.md)."


def ask_torch() -> dict[str, Any]:
    """What torch says in a process of its own; {"error": its last line} where it cannot. ``-P``: a ``torch.py`` in the
    user's folder is not meant."""
    try:
        done = subprocess.run(  # noqa: S603 - our own words
            [sys.executable, "-P", "-c", _ASK_TORCH], capture_output=True, text=True, timeout=_TORCH_S, check=False
        )
        if done.returncode == 0:
            return dict(json.loads(done.stdout.splitlines()[-1]))
        return {"error": (done.stderr.strip().splitlines() or ["no word"])[-1]}
    except (OSError, ValueError, IndexError, subprocess.SubprocessError) as error:
        return {"error": type(error).__name__}


def check_torch(hardware: Hardware, said: dict[str, Any]) -> Iterator[Check]:
    """Torch's old troubles on a Mac; its import alone elsewhere."""
    if "error" in said:
        yield failed("torch", f"torch cannot be imported: {said['error']}", _REINSTALL_TORCH)
        return
    name = f"torch {said['version']}"
    if not hardware.apple_silicon:
        yield ok("torch", f"{name}, {'with' if said['cuda'] else 'without'} CUDA.")
        return
    if not said["built"]:
        yield failed("torch", f"{name} was built without MPS, so it runs on the CPU.", _REINSTALL_TORCH)
    elif not said["available"]:
        yield failed("torch", f"{name} has MPS, but this Mac does not offer it.", "Update to macOS 14 or later.")
    elif said["fallback"] not in (None, "1"):
        yield warning(
            "torch",
            f"{name} with MPS, but PYTORCH_ENABLE_MPS_FALLBACK is {said['fallback']}: what MPS lacks will fail.",
            "Unset it: whisperd sets it to 1 for its worker.",
        )
    else:
        yield ok("torch", f"{name} with MPS; what MPS lacks is computed on the CPU (PYTORCH_ENABLE_MPS_FALLBACK=1).")
    yield from _watermark(said["high"], said["low"])


def _watermark(high: str | None, low: str | None) -> Iterator[Check]:
    """Torch's own rules (ATen/mps/MPSAllocator.mm): 0 <= low <= high <= 2, a high of 0 is no limit, and what is no
    number counts as 0. Where the high mark alone is set under torch's low one, whisperd lowers that for its worker.
    """
    if high is None and low is None:
        return
    name = "mps memory"
    said = " and ".join(
        f"PYTORCH_MPS_{word}_WATERMARK_RATIO is {value}" for word, value in (("HIGH", high), ("LOW", low)) if value
    )
    upper, lower = _number(high, _HIGH_WATERMARK), _number(low, 0.0)
    if not (0 <= upper <= _MOST_WATERMARK and 0 <= lower <= (upper or _MOST_WATERMARK)):
        yield failed(
            name,
            f"{said}: torch refuses to use the GPU, since 0 <= low <= high <= 2 must hold (high is 1.7 if unset).",
            "Unset both.",
        )
    elif upper == 0:
        yield warning(
            name,
            f"{said}: torch may take all memory, and the Mac may freeze.",
            "Unset it, and take a model that fits (`whisperd doctor` names one).",
        )
    else:
        yield ok(name, f"{said}.")


def _number(text: str | None, unset: float) -> float:
    """As torch reads it."""
    if text is None:
        return unset
    try:
        return float(text)
    except ValueError:
        return 0.0
