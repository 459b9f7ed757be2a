"""The backends by name. Choosing one is a row in this table; nothing is imported until a worker loads it."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.errors import BackendUnavailable

if TYPE_CHECKING:
    from app.backends.base import Backend


@dataclass(frozen=True, slots=True)
class BackendInfo:
    """``path`` is ``module:class``; ``library`` the module that must be importable; ``install`` the command that
    brings it; ``format`` what its weights look like on disk (a key of ``app.convert.FORMATS``), None where it needs
    none."""

    path: str
    library: str | None
    install: str
    format: str | None


BACKENDS: dict[str, BackendInfo] = {
    "faster-whisper": BackendInfo(
        "app.backends.faster_whisper:FasterWhisper",
        "faster_whisper",
        "pip install 'whisperd[faster-whisper]'",
        "ctranslate2",
    ),
    "mlx-whisper": BackendInfo(
        "app.backends.mlx_whisper:MlxWhisper",
        "mlx_whisper",
        "pip install 'whisperd[mlx]' && pip install --no-deps mlx-whisper",
        "mlx",
    ),
    "whisper.cpp": BackendInfo(
        "app.backends.whisper_cpp:WhisperCpp",
        "_pywhispercpp",
        "pip install 'whisperd[whispercpp]'",
        "ggml",
    ),
    "openai-whisper": BackendInfo(
        "app.backends.openai_whisper:OpenAIWhisper",
        "whisper",
        "pip install 'whisperd[openai]'",
        "openai",
    ),
    "fake": BackendInfo("app.backends.fake:Fake", None, "", None),
}


def installed(name: str) -> bool:
    """Whether the backend's library can be found, without importing it."""
    library = BACKENDS[name].library
    return library is None or importlib.util.find_spec(library) is not None


def not_installed(name: str) -> str:
    """What to say of a backend whose library is missing."""
    return f"{name} is not installed. Install it with: {BACKENDS[name].install}"


def not_importable(name: str, error: ImportError) -> BackendUnavailable:
    """What to say where the backend's library cannot be imported: it is missing, or it is broken."""
    if not installed(name):
        return BackendUnavailable(not_installed(name))
    found = f"{name} is installed, but cannot be imported ({error})."
    return BackendUnavailable(f"{found} Reinstall it with: {BACKENDS[name].install}")


def create(name: str) -> Backend:
    """A new, unloaded backend. KeyError for a name that is not in the table."""
    module, _, attribute = BACKENDS[name].path.partition(":")
    backend: Backend = getattr(importlib.import_module(module), attribute)()
    return backend
