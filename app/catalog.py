"""Model names: what a request may call a model, which repository of the hub holds it for a backend, and where it lies.

Answering a request never downloads and never touches the network: the hub's cache is read as the folders that it is
(``models--org--name/snapshots/<revision>``). Only ``pull`` imports huggingface_hub. A name is never taken for a path:
folders come from the operator alone.
"""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from app.backends import BACKENDS
from app.convert import detect
from app.errors import BackendUnavailable, InvalidRequest, StorageFull, UnknownModel, WhisperdError
from app.model_names import (
    ALIASES,
    MICRO,
    PULL_PATTERNS,
    Source,
    canonical_name,
    holds_many,
    means_default,
    name_of_file,
    names_for,
    sources_of,
)

MICRO_FOLDER = Path(__file__).parent / "data" / "micro"

#: A hub id: anything else must never become part of a path.
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Model:
    """``name`` is the public id; ``path`` the folder to load (the worker converts a checkpoint); ``repo`` the hub's id,
    None for a folder of the operator's; ``created`` Unix seconds, the folder's last change; ``owned_by`` the
    repository's owner, ``whisperd`` or ``local``."""

    name: str
    path: Path
    repo: str | None
    created: int
    owned_by: str


class Catalog:
    """The models of one backend on this machine.

    ``cache_dir`` is the hub's cache, which other programs share; ``default_model`` a name, a hub id
    or a folder; ``registered`` the operator's own names and folders, which go before all others.
    """

    def __init__(
        self, backend: str, cache_dir: Path, default_model: str, registered: Mapping[str, Path] | None = None
    ) -> None:
        self.backend = backend
        self.cache_dir = cache_dir
        self.default_model = default_model
        self.registered = dict(registered or {})
        folder = Path(default_model).expanduser()
        if default_model.startswith(("/", "~", "./", "../")) and default_model not in self.registered:
            # A default given as a folder is a registration; its own name is nicer to read than its path.
            self.default_model = folder.name if folder.name not in self.registered else default_model
            self.registered[self.default_model] = folder

    @property
    def default_name(self) -> str:
        """The default model's public name."""
        known = None if self.default_model in self.registered else canonical_name(self.default_model)
        return known or self.default_model

    def resolve(self, name: str | None) -> Model:
        """The model that a request's ``model`` field means; no network, a few small reads.

        Raises ``UnknownModel``: with the command that downloads it where the name is known.
        """
        wanted = (name or "").strip()
        if wanted not in self.registered and means_default(wanted):
            wanted = self.default_model
        found = self._find(wanted)
        if found is not None:
            return found
        shown = wanted[:100]
        if wanted in self.registered:
            raise UnknownModel(
                f"The model {shown!r} is registered, but its folder holds no {self._kind}.", param="model"
            )
        known = canonical_name(wanted)
        if known is not None:
            raise UnknownModel(
                f"The model {shown!r} is not downloaded; `whisperd models pull {known}` downloads it.", param="model"
            )
        raise UnknownModel(f"The model {shown!r} does not exist on this server.", param="model")

    def available(self) -> list[Model]:
        """The models that a request can have now, the default first, then registered folders and downloads.

        ``micro`` is among them only where the operator made it the default or registered it: it understands no
        person, so it must never be offered to one who picks from a list. Asked for by name it is there all the same.
        """
        names = [self.default_model, *self.registered, *names_for(self.backend), *self._cached_repositories()]
        found = (self._find(name) for name in names)
        return list({model.name: model for model in found if model is not None}.values())

    def pull(self, name: str, *, progress: bool | None = None) -> Path:
        """Download a model by its name or hub id and return its folder; a download that broke off goes on there.

        ``progress`` shows bars on stderr; None where that is a terminal. Honours ``HF_ENDPOINT``, ``HF_HUB_OFFLINE``
        and ``HF_TOKEN``. Raises ``UnknownModel``, ``BackendUnavailable`` (no network), ``StorageFull`` or
        ``InvalidRequest`` (no Whisper model in it that the backend can use), each with a sentence.
        """
        wanted = self.default_model if means_default(name) else name
        local = self._find(wanted) if wanted in self.registered or wanted == MICRO else None
        if local is not None:
            return local.path
        source = self._source(wanted)
        folder = _download(source, self.cache_dir, sys.stderr.isatty() if progress is None else progress)
        path = folder / source.file if source.file else folder
        if not self._usable(path):
            raise InvalidRequest(f"The repository {source.repo} was downloaded, but it holds no {self._kind}.")
        return path

    @property
    def _kind(self) -> str:
        return f"whole Whisper model that {self.backend} can use"

    def _source(self, name: str) -> Source:
        found = sources_of(self.backend, ALIASES.get(name, name))
        if found:
            return found[0]
        if _HUB_ID.fullmatch(name) and not holds_many(name):
            return Source(name)
        raise UnknownModel(
            f"There is no model {name!r} for {self.backend}; choose one of {', '.join(names_for(self.backend))}, "
            "or a hub id (owner/name)."
        )

    def _find(self, name: str) -> Model | None:
        if BACKENDS[self.backend].format is None:
            # A backend without weights has its default and what was registered.
            known = name == self.default_model or name in self.registered
            return Model(name, self.registered.get(name, Path(name)), None, 0, "whisperd") if known else None
        if name in self.registered:
            return self._model(name, self.registered[name], None, "local")
        if name == MICRO:
            return self._model(name, MICRO_FOLDER, None, "whisperd")
        if holds_many(name):
            return None
        known_name = canonical_name(name)
        for source in sources_of(self.backend, known_name) if known_name else [Source(name)]:
            for snapshot in _snapshots(self.cache_dir, source.repo):
                path = snapshot / source.file if source.file else snapshot
                model = self._model(known_name or name, path, source.repo, source.repo.partition("/")[0])
                if model is not None:
                    return model
        return None

    def _model(self, name: str, path: Path, repo: str | None, owner: str) -> Model | None:
        if not self._usable(path):
            return None
        return Model(name, path, repo, int(path.stat().st_mtime), owner)

    def _usable(self, path: Path) -> bool:
        return detect(path) in (BACKENDS[self.backend].format, "huggingface")

    def _cached_repositories(self) -> Iterator[str]:
        for folder in sorted(self.cache_dir.glob("models--*--*")):
            repo = _repository_in(folder)
            # Another backend's conversion of a catalog model is no model of its own.
            if canonical_name(repo) is None and not holds_many(repo):
                yield repo


def can_translate(model: Model) -> bool:
    """Whether the model was trained to translate into English: by its name, since its weights do not say.

    English-only, turbo and distilled models were not (their model cards say so), nor was ``micro``.
    """
    names = f"{model.name} {model.repo or ''} {model.path.name}".lower()
    return not any(re.search(pattern, names) for pattern in (r"\.en\b", "turbo", "distil", rf"\b{MICRO}\b"))


def model_key(path: Path) -> str:
    """What the model in a folder is called beyond this machine: the catalog's name or the hub's id; else the folder."""
    if path == MICRO_FOLDER:
        return MICRO
    for snapshot, file in ((path, ""), (path.parent, path.name)):
        if snapshot.parent.name == "snapshots":
            repo = _repository_in(snapshot.parent.parent)
            return name_of_file(repo, file) or canonical_name(repo) or f"{repo}/{file}".rstrip("/")
    return str(path.resolve())


def _repository_in(folder: Path) -> str:
    """The hub's id of the repository that a folder of the hub's cache holds."""
    return folder.name.removeprefix("models--").replace("--", "/", 1)


def _snapshots(cache_dir: Path, repo: str) -> Iterator[Path]:
    """A repository's snapshots in the hub's cache: the one that ``main`` points at, then the others, newest first."""
    if not _HUB_ID.fullmatch(repo) or "--" in repo:
        return
    folder = cache_dir / f"models--{repo.replace('/', '--')}"
    try:
        main = (folder / "refs" / "main").read_text("utf-8").strip()
    except OSError:  # downloaded by its revision
        main = ""
    newest_first = sorted((folder / "snapshots").glob("*"), key=lambda path: path.lstat().st_mtime, reverse=True)
    yield from sorted(newest_first, key=lambda path: path.name != main)


def _download(source: Source, cache_dir: Path, progress: bool) -> Path:
    """The snapshot's folder."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

    try:
        (enable_progress_bars if progress else disable_progress_bars)()
        wanted = [source.file] if source.file else list(PULL_PATTERNS)
        return Path(snapshot_download(source.repo, cache_dir=cache_dir, allow_patterns=wanted))
    except Exception as error:  # noqa: BLE001 - the hub's libraries raise many things, and each must become a sentence
        raise _download_error(source.repo, error) from None


def _download_error(repo: str, error: Exception) -> WhisperdError:
    from huggingface_hub import constants, errors

    if isinstance(error, errors.GatedRepoError):
        return UnknownModel(f"The repository {repo} asks for consent: open its page, then log in with `hf auth login`.")
    if isinstance(error, errors.RepositoryNotFoundError | errors.RevisionNotFoundError | errors.HFValidationError):
        return UnknownModel(f"The hub has no repository {repo}, or it is private and you are not logged in.")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull(f"The disk is full: {repo} was not downloaded. Make room and pull it again.")
    if constants.HF_HUB_OFFLINE:
        return BackendUnavailable(f"HF_HUB_OFFLINE forbids the network, and {repo} is not on this machine.")
    if isinstance(error, errors.LocalEntryNotFoundError):
        return BackendUnavailable(f"{constants.ENDPOINT} cannot be reached, so {repo} was not downloaded.")
    if isinstance(error, PermissionError):
        return BackendUnavailable(f"{repo} could not be written to {error.filename}: permission denied.")
    return BackendUnavailable(
        f"The download of {repo} broke off ({type(error).__name__}); pull it again, it goes on where it stopped."
    )
