"""What models are called, and where the hub has them for each backend: tables only."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

#: The bundled model: it understands clean synthetic speech and nothing else, so only who names it gets it.
MICRO = "micro"

#: Names that mean the default model, as shell patterns: OpenAI's own, which clients send without asking anybody.
DEFAULT_NAMES = ("whisper-1", "gpt-*transcribe*")

ALIASES = {"turbo": "large-v3-turbo", "large": "large-v3"}


@dataclass(frozen=True, slots=True)
class Source:
    """A repository of the hub (``owner/name``), or one ``file`` of a repository that holds many models."""

    repo: str
    file: str | None = None


#: Name -> OpenAI's checkpoint, which any backend may convert.
CHECKPOINTS = {
    "tiny": "openai/whisper-tiny",
    "tiny.en": "openai/whisper-tiny.en",
    "base": "openai/whisper-base",
    "base.en": "openai/whisper-base.en",
    "small": "openai/whisper-small",
    "small.en": "openai/whisper-small.en",
    "medium": "openai/whisper-medium",
    "medium.en": "openai/whisper-medium.en",
    "large-v1": "openai/whisper-large",
    "large-v2": "openai/whisper-large-v2",
    "large-v3": "openai/whisper-large-v3",
    "large-v3-turbo": "openai/whisper-large-v3-turbo",
    "distil-large-v3": "distil-whisper/distil-large-v3",
}

#: whisper.cpp's own repository has a file for each model, and quantised ones under names of their own.
_GGML = "ggerganov/whisper.cpp"
_QUANTISED = {
    "q5_1": ("tiny", "tiny.en", "base", "base.en", "small", "small.en"),
    "q5_0": ("medium", "medium.en", "large-v2", "large-v3", "large-v3-turbo"),
    "q8_0": ("tiny", "base", "small", "medium", "large-v2", "large-v3-turbo"),
}

#: Backend -> name -> the model in the backend's own format. The names follow no rule; these are the real ones.
SOURCES: dict[str, dict[str, Source]] = {
    "faster-whisper": {
        **{name: Source(f"Systran/faster-whisper-{name}") for name in CHECKPOINTS},
        "large-v3-turbo": Source("mobiuslabsgmbh/faster-whisper-large-v3-turbo"),
        "distil-large-v3": Source("Systran/faster-distil-whisper-large-v3"),
    },
    "mlx-whisper": {
        **{name: Source(f"mlx-community/whisper-{name}-mlx") for name in CHECKPOINTS},
        "large-v3-turbo": Source("mlx-community/whisper-large-v3-turbo"),
        "distil-large-v3": Source("mlx-community/distil-whisper-large-v3"),
        **{
            f"{name}-q4": Source(f"mlx-community/whisper-{name}-mlx-q4") for name in ("tiny", "base", "small", "medium")
        },
        "large-v3-turbo-q4": Source("mlx-community/whisper-large-v3-turbo-q4"),
        **{
            f"{name}-8bit": Source(f"mlx-community/whisper-{name}-mlx-8bit")
            for name in ("tiny", "base", "small", "medium", "large-v3")
        },
    },
    "whisper.cpp": {
        **{name: Source(_GGML, f"ggml-{name}.bin") for name in CHECKPOINTS},
        "distil-large-v3": Source("distil-whisper/distil-large-v3-ggml", "ggml-distil-large-v3.bin"),
        **{
            f"{name}-{bits}": Source(_GGML, f"ggml-{name}-{bits}.bin")
            for bits, names in _QUANTISED.items()
            for name in names
        },
    },
}

#: What a model needs of its repository, in any format: many hold the same weights five times over.
PULL_PATTERNS = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "vocabulary.*",
    "model.bin",
    "model.safetensors",
    "model-*-of-*.safetensors",
    "model.safetensors.index.json",
    "weights.safetensors",
    "weights.npz",
)


def names_for(backend: str) -> list[str]:
    """The names that the backend has models for, the checkpoints first."""
    return list({**CHECKPOINTS, **SOURCES.get(backend, {})})


def sources_of(backend: str, name: str) -> list[Source]:
    """Where a model of ``names_for`` may come from, the backend's own format first."""
    own, checkpoint = SOURCES.get(backend, {}).get(name), CHECKPOINTS.get(name)
    return [*([own] if own else []), *([Source(checkpoint)] if checkpoint else [])]


def means_default(name: str) -> bool:
    """Whether a request's model name leaves the choice to the server: empty, or one of OpenAI's own."""
    return not name.strip() or any(fnmatchcase(name.strip(), pattern) for pattern in DEFAULT_NAMES)


def canonical_name(name: str) -> str | None:
    """The catalog's name for a name, an alias or any of the model's hub ids (of whatever backend); None for others."""
    known = ALIASES.get(name, name)
    if known in CHECKPOINTS or any(known in table for table in SOURCES.values()):
        return known
    own = [(each, source) for table in SOURCES.values() for each, source in table.items()]
    own += [(each, Source(repo)) for each, repo in CHECKPOINTS.items()]
    return next((each for each, source in own if source.file is None and source.repo == name), None)


def name_of_file(repo: str, file: str) -> str | None:
    """The name of the model in one file of a repository that holds many; None for others."""
    table = SOURCES["whisper.cpp"]
    return next((name for name, source in table.items() if source == Source(repo, file)), None)


def holds_many(repo: str) -> bool:
    """Whether the repository holds a model in each of its files: it is no model itself."""
    return any(source.file and source.repo == repo for table in SOURCES.values() for source in table.values())
