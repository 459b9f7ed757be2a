"""What to run where nobody said: backend and model for a machine, and why. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from app.hardware import Hardware
from app.model_names import ALIASES

#: Millions of parameters (OpenAI's and the distilled models' cards).
PARAMETERS = {
    "tiny": 39,
    "base": 74,
    "small": 244,
    "medium": 769,
    "large-v1": 1550,
    "large-v2": 1550,
    "large-v3": 1550,
    "large-v3-turbo": 809,
    "distil-large-v3": 756,
}
#: Backend -> bytes a parameter at its default precision (on a CPU; CUDA's are twice faster-whisper's), bytes needed for
#: each of the weights', and gigabytes beside them. MLX and faster-whisper as measured with eight windows a step
#: (docs/performance.md); whisper.cpp and openai-whisper after their own READMEs.
_NEEDS = {
    "mlx-whisper": (2.0, 3.2, 0.3),
    "faster-whisper": (1.0, 3.2, 0.3),
    "whisper.cpp": (2.0, 1.3, 0.3),
    "openai-whisper": (4.0, 1.5, 0.6),
}
#: Bytes a parameter of quantised weights, by the number of bits, scales included.
_QUANTISED = {"4": 0.57, "5": 0.69, "8": 1.07}
#: A model is picked that takes no more than this of the memory.
_COMFORTABLE = 0.5
#: A model asked for must not take more than this.
_POSSIBLE = 0.8
#: What is picked on a GPU and on a CPU, the best first.
_ON_GPU = ("large-v3-turbo", "small", "base", "tiny")
_ON_CPU = ("base", "tiny")


@dataclass(frozen=True, slots=True)
class Choice:
    """The ``backend`` and ``model`` to run, and a sentence for ``why`` each."""

    backend: str
    model: str
    why_backend: str
    why_model: str

    @property
    def reason(self) -> str:
        """Both in one line."""
        return f"{self.backend} is {self.why_backend}; {self.model} is {self.why_model}"


def choose(hardware: Hardware, installed: Collection[str], backend: str = "", model: str = "") -> Choice:
    """What to run on ``hardware`` with the ``installed`` backends; ``backend`` and ``model`` as asked for, if so."""
    why_backend = "configured"
    if not backend:
        backend, why_backend = _backend(hardware, installed)
    why_model = "configured"
    if not model:
        model, why_model = _model(hardware, backend)
    return Choice(backend, model, why_backend, why_model)


def memory_needed(backend: str, model: str) -> int | None:
    """Bytes that the backend is expected to need for the model, in the GPU's memory where it has its own; None where
    nothing is known of the model."""
    name = ALIASES.get(model, model)
    quantised = re.fullmatch(r"(.+?)-q?(\d)(?:_\d|bit)?", name)
    bits = quantised[2] if quantised and quantised[2] in _QUANTISED else ""
    parameters = PARAMETERS.get((quantised[1] if quantised and bits else name).removesuffix(".en"))
    if parameters is None or backend not in _NEEDS:
        return None
    width, factor, beside = _NEEDS[backend]
    return int((parameters * 1e6 * (_QUANTISED[bits] if bits else width) * factor) + beside * 1e9)


def too_large(hardware: Hardware, backend: str, model: str) -> str:
    """A sentence where the model will hardly fit into the machine's memory, with one that does; else ""."""
    needed, memory = memory_needed(backend, model), _memory(hardware, backend)
    if needed is None or needed <= _POSSIBLE * memory:
        return ""
    fitting = _largest(hardware, backend, tuple(sorted(PARAMETERS, key=lambda name: -PARAMETERS[name])), _POSSIBLE)
    return (
        f"The model {model} needs about {needed / 1e9:.1f} GB on {backend}, and there are {memory / 1e9:.0f} GB; "
        f"{fitting} fits."
    )


def _backend(hardware: Hardware, installed: Collection[str]) -> tuple[str, str]:
    if hardware.apple_silicon and not hardware.rosetta:
        order, why = ("mlx-whisper", "whisper.cpp", "faster-whisper", "openai-whisper"), "on an Apple GPU"
    elif hardware.nvidia:
        order, why = ("faster-whisper", "openai-whisper", "whisper.cpp", "mlx-whisper"), "on an NVIDIA GPU"
    else:
        order, why = ("faster-whisper", "whisper.cpp", "openai-whisper", "mlx-whisper"), "on a CPU"
    found = next((name for name in order if name in installed), order[0])
    if found == order[0]:
        return found, f"the fastest {why}"
    return found, f"the fastest {why} of those that are installed; {order[0]} is not"


def _model(hardware: Hardware, backend: str) -> tuple[str, str]:
    order = _ON_GPU if _on_gpu(hardware, backend) else _ON_CPU
    model = _largest(hardware, backend, order, _COMFORTABLE)
    memory = f"{_memory(hardware, backend) / 2**30:.0f} GB"
    if model != order[0]:
        return model, f"{order[0]} would take more than half of the {memory}"
    return model, f"fast enough on a GPU, and at home in {memory}" if order is _ON_GPU else "fast enough on a CPU"


def _largest(hardware: Hardware, backend: str, order: tuple[str, ...], share: float) -> str:
    """The first of ``order`` that needs no more than a ``share`` of the memory; the last where none does."""
    memory = _memory(hardware, backend)
    return next((name for name in order if (memory_needed(backend, name) or 0) <= share * memory), order[-1])


def _on_gpu(hardware: Hardware, backend: str) -> bool:
    if hardware.apple_silicon:  # CTranslate2 has no Metal
        return backend != "faster-whisper" and not hardware.rosetta
    return bool(hardware.nvidia) and backend in ("faster-whisper", "openai-whisper", "mlx-whisper")


def _memory(hardware: Hardware, backend: str) -> int:
    own = hardware.nvidia_memory and _on_gpu(hardware, backend)
    return hardware.nvidia_memory if own else hardware.memory
