"""The default model, and the folders that models and uploads live in."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

from app.catalog import Catalog
from app.convert.tensors import read_safetensors
from app.defaults import memory_needed, too_large
from app.doctor.check import Check, failed, ok, warning
from app.engine.build import catalog_of
from app.errors import WhisperdError
from app.hardware import Hardware
from app.hub.cache import PARTIAL, repository_in
from app.model_names import name_of_file
from app.settings import Settings

#: Less room than this, and uploads or a model will not fit for long.
_LITTLE_ROOM = 5 * 10**9
#: A download that nobody has added to for so long was broken off.
_STALE_S = 24 * 3600


def check_models(settings: Settings, hardware: Hardware, *, quick: bool) -> Iterator[Check]:
    """``quick`` leaves the checksums out."""
    catalog = catalog_of(settings)
    yield _model(catalog, quick=quick)
    needed = memory_needed(settings.backend, settings.default_model)
    if unfit := too_large(hardware, settings.backend, settings.default_model):
        yield failed("memory", unfit, "Take the model that fits: --model, or WHISPERD_MODEL.")
    elif needed is not None:
        yield ok("memory", f"{settings.default_model} on {settings.backend} needs about {needed / 1e9:.1f} GB.")
    yield from _downloads(settings.hub_dir)


def check_folders(settings: Settings) -> Iterator[Check]:
    for name in ("state_dir", "cache_dir", "hub_dir"):
        yield _folder(name, getattr(settings, name))


def _model(catalog: Catalog, *, quick: bool) -> Check:
    try:
        model = catalog.resolve("")
        damages = catalog.verify("") if model.repo and not quick else []
    except WhisperdError as error:
        return failed("model", error.message, f"Download it with: {_pull(catalog)}")
    if damages:
        return failed("model", damages[0], f"Download it again with: {_pull(catalog)}")
    for file, damage in _damages(model.path):
        remedy = f"Download it again with: {_pull(catalog)}"
        if model.repo is None:
            remedy = f"Put a whole copy of that file into {file.parent}."
        return failed("model", f"{model.name} in {model.path} is broken: {damage}", remedy)
    return ok("model", f"{model.name} is in {model.path}.")


def _pull(catalog: Catalog) -> str:
    return f"whisperd models pull {catalog.default_model} --backend {catalog.backend}"


def _damages(path: Path) -> Iterator[tuple[Path, str]]:
    """The model's files that are cut short, as far as their formats tell, and a sentence about each."""
    for file in [path] if path.is_file() else sorted(path.iterdir()):
        if file.suffix == ".safetensors":
            try:
                read_safetensors(file)
            except WhisperdError as error:
                yield file, error.message
        elif file.suffix == ".pt" and not zipfile.is_zipfile(file):  # its table of contents is at the end
            yield file, f"{file.name} is cut short."


def _downloads(hub: Path) -> Iterator[Check]:
    """What downloads left that broke off: parts that nobody adds to, links to what is gone."""
    now = time.time()
    parts = [path for path in hub.glob("models--*/blobs/*.incomplete") if now - _changed(path, now) > _STALE_S]
    dangling = [path for path in hub.glob("models--*/snapshots/*/**/*") if path.is_symlink() and not path.exists()]
    # The cache is shared: other programs' models are theirs to mend.
    ours = [path for path in [*parts, *dangling] if "whisper" in path.relative_to(hub).parts[0].lower()]
    for name in sorted({_model_of(path, hub) for path in ours}):
        remedy = f"Go on with it, if you want it: whisperd models pull {name}"
        yield warning("download", f"The download of {name} is not whole.", remedy)


def _model_of(path: Path, hub: Path) -> str:
    """What to pull for a file in the hub's cache: its repository, or the model where that holds many."""
    repo = repository_in(hub / path.relative_to(hub).parts[0])
    file = path.name.removesuffix(PARTIAL).partition(".")[2] if path.name.endswith(PARTIAL) else path.name
    return name_of_file(repo, file) or repo


def _changed(path: Path, now: float) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # whole in this moment
        return now


def _folder(name: str, folder: Path) -> Check:
    there = next(path for path in [folder, *folder.absolute().parents] if os.access(path, os.F_OK))
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        return failed(
            name, f"{folder} cannot be written ({error.strerror}).", f"Choose another: --{name.replace('_', '-')}."
        )
    free = shutil.disk_usage(there).free
    found = f"{folder}, {free / 1e9:.0f} GB free."
    return warning(name, found, "Make room on that disk.") if free < _LITTLE_ROOM else ok(name, found)
