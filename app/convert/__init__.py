"""A Hugging Face Whisper checkpoint becomes what each backend loads. One file a format, each a row in ``FORMATS``.

Nothing heavy is imported before a conversion begins: the HTTP process asks ``detect`` too.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import hashlib
import importlib
import importlib.metadata
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app import json_file
from app.errors import InvalidRequest, StorageFull

#: Raised whenever a writer writes something else than before: converted models in the cache are then made anew.
CONVERTER_VERSION = 1
#: Files of a checkpoint that a conversion reads.
_SOURCE_FILES = ("*.json", "merges.txt", "model*.safetensors")
#: How the name of a conversion in the cache ends.
_KEY = re.compile(r"-[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Format:
    """``path`` is ``module:function`` (checkpoint, folder) of the writer, None for the source's own format; ``probe``
    tells whether a path holds a whole model in the format; ``library`` the distribution whose version may matter."""

    path: str | None
    probe: Callable[[Path], bool]
    library: str | None = None


def _is_huggingface(path: Path) -> bool:
    if _config(path).get("model_type") != "whisper" or "d_model" not in _config(path):
        return False
    if (path / "model.safetensors").is_file():
        return True
    shards = json_file.read(path / "model.safetensors.index.json").get("weight_map")
    return isinstance(shards, dict) and all((path / str(name)).is_file() for name in set(shards.values()))


def _is_ctranslate2(path: Path) -> bool:
    vocabulary = any((path / f"vocabulary.{ending}").is_file() for ending in ("json", "txt"))
    # The file begins with its version and the name of the architecture.
    return vocabulary and (path / "config.json").is_file() and b"WhisperSpec" in _head(path / "model.bin", 32)


def _is_mlx(path: Path) -> bool:
    weights = any((path / f"weights.{ending}").is_file() for ending in ("safetensors", "npz"))
    return weights and "n_audio_state" in _config(path)


def _is_ggml(path: Path) -> bool:
    return any(_head(file, 4) == b"lmgg" for file in _files(path, "*.bin"))


def _is_openai(path: Path) -> bool:
    return any(_head(file, 2) == b"PK" for file in _files(path, "*.pt"))


FORMATS: dict[str, Format] = {
    "huggingface": Format(None, _is_huggingface),
    "ctranslate2": Format("app.convert.ctranslate2:write", _is_ctranslate2, "ctranslate2"),
    "mlx": Format("app.convert.mlx:write", _is_mlx),
    "ggml": Format("app.convert.ggml:write", _is_ggml),
    "openai": Format("app.convert.openai:write", _is_openai),
}


def detect(path: Path) -> str | None:
    """The format (a key of ``FORMATS``) of the whole model in the folder or file ``path``; None for anything else.

    A folder whose weights are missing, as an interrupted download leaves it, is None. Costs a few small reads.
    """
    return next((name for name, format_ in FORMATS.items() if format_.probe(path)), None)


def convert(source: Path, format: str, dest: Path) -> Path:  # noqa: A002 - the word of the house
    """Convert the Hugging Face checkpoint in the folder ``source`` into the new folder ``dest``, and return ``dest``.

    ``dest`` appears whole or not at all: the work is done in a folder beside it. Raises ``InvalidRequest`` for a source
    that cannot be used or a ``dest`` that exists, ``BackendUnavailable`` for a missing library, ``StorageFull``.
    """
    path = FORMATS[format].path if format in FORMATS else None
    if path is None:
        known = ", ".join(name for name, entry in FORMATS.items() if entry.path)
        raise InvalidRequest(f"There is no conversion to {format!r}; choose one of {known}.")
    if dest.exists():
        raise InvalidRequest(f"{dest} exists already.")
    with _storage(dest):
        dest.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=_work_prefix(dest), dir=dest.parent))
        try:
            _write(path, source, work)
            _to_disk(work)
            work.rename(dest)
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise
    return dest


def ensure(source: Path, format: str, cache: Path) -> Path:  # noqa: A002 - the word of the house
    """The model of ``source`` in ``format``: ``source`` itself, or its conversion in ``cache``, made where missing.

    A conversion is kept as ``cache/<format>/<name>-<key>``, the key drawn from the source's bytes and the versions of
    converter and library. Safe in several processes at once: one converts, the others wait. Raises like ``convert``.
    """
    found = detect(source)
    if found == format:
        return source
    if found not in (None, "huggingface"):
        raise InvalidRequest(f"{source.name} is in the {found} format; only Hugging Face checkpoints become {format}.")
    if format not in FORMATS:
        raise InvalidRequest(f"There is no format {format!r}.")
    dest = cache / format / f"{_label(source)}-{_key(source, format, cache)}"
    if dest.is_dir():
        return dest
    with _storage(dest), _locked(dest):
        if not dest.is_dir():
            # Whoever holds the lock is alone: work folders of this name were left by a process that was killed.
            for left in dest.parent.glob(_work_prefix(dest) + "*"):
                shutil.rmtree(left, ignore_errors=True)
            convert(source, format, dest)
    return dest


def conversions_of(source: Path, cache: Path) -> list[Path]:
    """The conversions of ``source`` that ``ensure`` made, by this version and by older ones: it need not exist."""
    return [path for path in cache.glob(f"*/{glob.escape(_label(source))}-*") if _KEY.fullmatch(path.name[-17:])]


def _write(path: str, source: Path, work: Path) -> None:
    from app.convert.checkpoint import open_checkpoint

    module, _, function = path.partition(":")
    getattr(importlib.import_module(module), function)(open_checkpoint(source), work)


def _work_prefix(dest: Path) -> str:
    return f".{dest.name}.work-"


def _to_disk(folder: Path) -> None:
    """Make the files last through a power cut before the folder gets its name, and readable as downloads are."""
    for file in folder.iterdir():
        file.chmod(0o644)
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
    folder.chmod(0o755)


@contextmanager
def _locked(dest: Path) -> Iterator[None]:
    dest.parent.mkdir(parents=True, exist_ok=True)
    # The lock's file stays: removing it would let two processes hold different files of one name.
    with (dest.parent / f".{dest.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _storage(dest: Path) -> Iterator[None]:
    """Turn a full disk into a sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(f"The disk is full: the model could not be converted into {dest.parent}.") from None
        raise


def _label(source: Path) -> str:
    """A name to recognise the conversion by; a snapshot of the hub is named by its repository."""
    folder = source.parent.parent if source.parent.name == "snapshots" else source
    return folder.resolve().name.removeprefix("models--") or "model"


def _key(source: Path, format_: str, cache: Path) -> str:
    library = FORMATS[format_].library
    try:
        version = importlib.metadata.version(library) if library else ""
    except importlib.metadata.PackageNotFoundError:
        version = ""
    seed = f"{CONVERTER_VERSION} {version} {_digest(source, cache)}"
    return hashlib.sha256(seed.encode()).hexdigest()[:16]


def _digest(source: Path, cache: Path) -> str:
    """SHA-256 over the source's files, remembered by their sizes and times, since 3 GB take seconds."""
    files = sorted({file for pattern in _SOURCE_FILES for file in source.glob(pattern) if file.is_file()})
    state = [[file.name, (stat := file.stat()).st_size, stat.st_mtime_ns, stat.st_ctime_ns] for file in files]
    memory = cache / "digests" / f"{hashlib.sha256(str(source.resolve()).encode()).hexdigest()[:16]}.json"
    known = json_file.read(memory)
    if known.get("schema") == 1 and known.get("files") == state:
        return str(known["digest"])
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as handle:
            while chunk := handle.read(1 << 20):
                digest.update(chunk)
    with _storage(memory):
        json_file.write(memory, {"schema": 1, "files": state, "digest": digest.hexdigest()})
    return digest.hexdigest()


def _config(path: Path) -> dict[str, Any]:
    return json_file.read(path / "config.json")


def _head(path: Path, length: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(length)
    except OSError:
        return b""


def _files(path: Path, pattern: str) -> list[Path]:
    return sorted(path.glob(pattern)) if path.is_dir() else [path]
