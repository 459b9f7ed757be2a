"""What people quote of an Apple M4 Pro, to be checked row by row: figures of unknown making, not ours."""

from __future__ import annotations

from dataclasses import dataclass

MACHINE = "M4 Pro"


@dataclass(frozen=True, slots=True)
class Quoted:
    """``speed`` in times real time, ``memory`` in bytes."""

    speed: float
    memory: int


def _both(tiny: float, base: float, memory_gb: float) -> dict[str, Quoted]:
    memory = round(memory_gb * 1e9)
    return {"tiny": Quoted(tiny, memory), "base": Quoted(base, memory)}


#: Backend -> model -> figures.
QUOTED: dict[str, dict[str, Quoted]] = {
    "mlx-whisper": _both(27, 18, 1.5),
    "whisper.cpp": _both(25, 16, 0.8),
    "faster-whisper": _both(15, 10, 2.5),
    "openai-whisper": _both(8, 5, 3.0),
}

NOTE = (
    f"Quoted: what people say of an {MACHINE}; whisper.cpp on Metal, openai-whisper on MPS. faster-whisper is quoted "
    "as MPS, which CTranslate2, its library, does not have: on a Mac it runs on the CPU."
)


def quoted(backend: str, model: str) -> Quoted | None:
    return QUOTED.get(backend, {}).get(model)


def is_quoted_machine(chip: str) -> bool:
    """Whether the figures are of a machine with this chip."""
    return chip == f"Apple {MACHINE}"
