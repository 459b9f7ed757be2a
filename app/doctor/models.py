"""The default model, and the folders that models and uploads live in."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from app.catalog import Catalog
from app.defaults import memory_needed, too_large
from app.doctor.check import Check, failed, ok, warning
from app.engine.build import catalog_of
from app.errors import WhisperdError
from app.hardware import Hardware
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
    remedy = f"whisperd models pull {catalog.default_model} --backend {catalog.backend}"
    try:
        model = catalog.resolve("")
        damages = catalog.verify("") if model.repo and not quick else []
    except WhisperdError as error:
        return failed("model", error.message, remedy)
    if damages:
        return failed("model", damages[0], remedy)
    return ok("model", f"{model.name} is in {model.path}.")


def _downloads(hub: Path) -> Iterator[Check]:
    """What downloads left that broke off: parts that nobody adds to, links to what is gone."""
    now = time.time()
    parts = [path for path in hub.glob("models--*/blobs/*.incomplete") if now - path.stat().st_mtime > _STALE_S]
    dangling = [path for path in hub.glob("models--*/snapshots/*/**/*") if path.is_symlink() and not path.exists()]
    for repository in sorted({path.relative_to(hub).parts[0] for path in [*parts, *dangling]}):
        name = repository.removeprefix("models--").replace("--", "/", 1)
        yield warning("download", f"The download of {name} is not whole.", f"whisperd models pull {name}")


def _folder(name: str, folder: Path) -> Check:
    there = next(path for path in [folder, *folder.absolute().parents] if path.exists())
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
