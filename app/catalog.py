"""Model names: what a request may call a model, which repository of the hub holds it for a backend, and where it lies.

Answering a request never downloads and never touches the network: the hub's cache is read as the folders that it is
(``models--org--name/snapshots/<revision>``). Only ``pull`` and ``remove`` import huggingface_hub. A name is never taken
for a path: folders come from the operator alone.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from app.backends import BACKENDS
from app.convert import conversions_of, detect
from app.errors import BackendUnavailable, InvalidRequest, UnknownModel
from app.hub import cache as hub_cache
from app.hub.download import Report, download, listing_of
from app.model_names import (
    ALIASES,
    MICRO,
    Source,
    canonical_name,
    holds_many,
    means_default,
    name_of_file,
    names_for,
    sources_of,
)

MICRO_FOLDER = Path(__file__).parent / "data" / "micro"


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
        # Whole paths: children work in folders of their own.
        self.registered = {name: path.expanduser().absolute() for name, path in (registered or {}).items()}
        folder = Path(default_model).expanduser().absolute()
        if default_model.startswith(("/", "~", "./", "../")) and default_model not in self.registered:
            # A default given as a folder is a registration; its own name is nicer to read than its path.
            self.default_model = folder.name if folder.name not in self.registered else default_model
            self.registered[self.default_model] = folder

    @property
    def default_name(self) -> str:
        """The default model's public name."""
        known = None if self.default_model in self.registered else canonical_name(self.default_model)
        return known or self.default_model

    def meant(self, name: str) -> str:
        """The name itself, or the default's where it leaves the choice to the server."""
        wanted = name.strip()
        return self.default_model if wanted not in self.registered and means_default(wanted) else wanted

    def resolve(self, name: str | None) -> Model:
        """The model that a request's ``model`` field means; no network, a few small reads.

        Raises ``UnknownModel``: with the command that downloads it where the name is known.
        """
        wanted = self.meant(name or "")
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

    def has(self, name: str) -> bool:
        """Whether ``resolve`` would find it."""
        try:
            self.resolve(name)
        except UnknownModel:
            return False
        return True

    def available(self) -> list[Model]:
        """The models that a request can have now, the default first, then registered folders and downloads.

        ``micro`` is among them only where the operator made it the default or registered it: it understands no
        person, so it must never be offered to one who picks from a list. Asked for by name it is there all the same.
        """
        names = [self.default_model, *self.registered, *names_for(self.backend), *self._cached_repositories()]
        found = (self._find(name) for name in names)
        return list({model.name: model for model in found if model is not None}.values())

    def pull(self, name: str, report: Report = lambda _: None) -> Path:
        """Download a model by its name or hub id, check it, and return its folder or file; what broke off goes on.

        Honours ``HF_ENDPOINT``, ``HF_HUB_OFFLINE`` and ``HF_TOKEN``; where the hub cannot be reached, a model that is
        here is as good. Raises ``UnknownModel``, ``BackendUnavailable`` (no network, broken off, wrong checksum),
        ``StorageFull`` or ``InvalidRequest`` (no Whisper model in it that the backend can use), each with a sentence.
        """
        source, wanted = self.source_of(name), self.meant(name)
        if source is None:
            return self.resolve(wanted).path
        try:
            listing = listing_of(source)
        except BackendUnavailable:
            if (found := self._find(wanted)) is not None:
                return found.path
            raise
        folder = download(listing, self.cache_dir, report)
        path = folder / source.file if source.file else folder
        if not self._usable(path):
            raise InvalidRequest(f"The repository {source.repo} was downloaded, but it holds no {self._kind}.")
        return path

    def source_of(self, name: str) -> Source | None:
        """Where ``pull`` gets a model; None for ``micro`` and the operator's folders. Raises ``UnknownModel``."""
        wanted = self.meant(name)
        if wanted in self.registered or wanted == MICRO:
            return None
        found = sources_of(self.backend, ALIASES.get(wanted, wanted))
        if found:
            return found[0]
        if hub_cache.HUB_ID.fullmatch(wanted) and not holds_many(wanted):
            return Source(wanted)
        raise UnknownModel(
            f"There is no model {wanted[:100]!r} for {self.backend}; choose one of "
            f"{', '.join(names_for(self.backend))}, or a hub id (owner/name).",
            param="model",
        )

    def downloads(self, name: str | None = None) -> list[Source]:
        """What was downloaded of a model, be it unfinished or damaged; of all models by default.

        A catalog name may have two downloads: in the backend's own format, and the checkpoint it can be converted from.
        Raises ``InvalidRequest`` for what was never downloaded, ``UnknownModel``.
        """
        if name is None:
            # Whisper models only: the cache is full of other programs' models.
            own = (repo for repo in self._cached_repositories() if self._find(repo) or self._is_unfinished(repo))
            names = [*names_for(self.backend), *own]
            return list(dict.fromkeys(source for each in names for source in self._downloads(each)))
        wanted = self.meant(name)
        if self.source_of(wanted) is None:
            raise InvalidRequest(
                f"The model {wanted!r} is a folder of its own, not a download: whisperd leaves it alone.", param="model"
            )
        found = self._downloads(wanted)
        if not found:
            raise UnknownModel(f"The model {wanted!r} is not downloaded.", param="model")
        return found

    def verify(self, name: str | None = None) -> list[str]:
        """What is wrong with a model's downloads (of all models by default), a sentence each; nothing where all is
        well. Reads every byte, asks no network. Raises as ``downloads`` does.
        """
        return [line for source in self.downloads(name) for line in hub_cache.damages(source, self.cache_dir)]

    def remove(self, name: str, conversions: Path) -> int:
        """Remove a model's downloads, and what was made of them in the folder ``conversions``; returns the bytes freed.

        Raises as ``downloads`` does, and ``Conflict`` while it is being downloaded.
        """
        freed = 0
        for source in self.downloads(name):
            freed += hub_cache.remove(source, self.cache_dir)
            repository = hub_cache.repository_folder(self.cache_dir, source.repo)
            for made in conversions_of(repository, conversions) if not source.file else ():
                freed += hub_cache.size_of(made)
                shutil.rmtree(made)
        return freed

    @property
    def _kind(self) -> str:
        return f"whole Whisper model that {self.backend} can use"

    def _downloads(self, name: str) -> list[Source]:
        known = sources_of(self.backend, ALIASES.get(name, name)) or [Source(name)]
        return [source for source in known if hub_cache.is_here(source, self.cache_dir)]

    def _is_unfinished(self, repo: str) -> bool:
        return hub_cache.is_unfinished(Source(repo), self.cache_dir)

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
            for snapshot in hub_cache.snapshots(self.cache_dir, source.repo):
                if not source.file and not hub_cache.is_complete(snapshot):
                    continue
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
            repo = hub_cache.repository_in(folder)
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
            repo = hub_cache.repository_in(snapshot.parent.parent)
            return name_of_file(repo, file) or canonical_name(repo) or f"{repo}/{file}".rstrip("/")
    return str(path.resolve())
