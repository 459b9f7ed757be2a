"""Which rows a table is to have: backends that are installed, with models that are on this machine."""

from __future__ import annotations

import contextlib
import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from app.backends import BACKENDS, installed
from app.bench.quoted import QUOTED
from app.bench.row import Row, Status
from app.catalog import MICRO_FOLDER, Catalog
from app.convert import detect
from app.engine.build import catalog_of
from app.errors import InvalidRequest, UnknownModel, WhisperdError
from app.model_names import MICRO, canonical_name, names_for
from app.settings import Settings

#: Backend -> distributions whose versions stand beside its figures.
_LIBRARIES = {
    "faster-whisper": ("faster-whisper", "ctranslate2"),
    "mlx-whisper": ("mlx-whisper", "mlx"),
    "whisper.cpp": ("pywhispercpp",),
    "openai-whisper": ("openai-whisper", "torch"),
}
#: Folders by the name that the table gives them.
Folders = Mapping[str, Sequence[Path]]


def backends_of(wanted: Sequence[str]) -> list[str]:
    """The backends named, or all that are installed. Raises ``InvalidRequest``."""
    unknown = [name for name in wanted if name not in BACKENDS]
    if unknown:
        raise InvalidRequest(f"There is no backend {unknown[0]!r}; choose of {', '.join(BACKENDS)}.")
    found = wanted or [name for name in BACKENDS if BACKENDS[name].library and installed(name)]
    if not found:
        raise InvalidRequest(f"No backend is installed; one comes with {BACKENDS['faster-whisper'].install}")
    return list(dict.fromkeys(found))


def models_of(wanted: Sequence[str]) -> tuple[list[str], dict[str, list[Path]]]:
    """The names of the models wanted, and the folders of those given as ``FOLDER`` or ``NAME=FOLDER``.

    A name may have several folders: each backend takes the one in its own format. Raises ``InvalidRequest``.
    """
    names, folders = list[str](), dict[str, list[Path]]()
    for word in wanted:
        name, _, given = word.rpartition("=")
        if not name and not word.startswith(("/", "~", "./", "../")):
            names.append(canonical_name(word) or word)
            continue
        path = Path(given).expanduser().resolve()
        if not path.exists():
            raise InvalidRequest(f"There is no folder {given!r}.")
        names.append(name or path.name)
        folders.setdefault(names[-1], []).append(path)
    return list(dict.fromkeys(names)), folders


def rows_of(settings: Settings, backends: Sequence[str], names: Sequence[str], folders: Folders) -> list[Row]:
    """A row for each backend with each model; without names, with each that is on this machine for it."""
    rows = []
    for backend in backends:
        found = {name: _best(backend, paths) for name, paths in folders.items()}
        catalog = catalog_of(settings.model_copy(update={"backend": backend, "models": {**settings.models, **found}}))
        if not installed(backend):
            note = f"`{BACKENDS[backend].install}` installs {backend}."
            rows += [_row(settings, backend, name, Status.NOT_INSTALLED, note) for name in names or [""]]
        elif names:
            rows += [_named(settings, catalog, name) for name in names]
        else:
            rows += [_runnable(settings, backend, model.name, model.path) for model in catalog.available()]
    return rows


def micro_rows(settings: Settings, backends: Sequence[str]) -> list[Row]:
    """What can be measured where no model is on this machine."""
    return [_runnable(settings, backend, MICRO, MICRO_FOLDER) for backend in backends if installed(backend)]


def quoted_rows(rows: Sequence[Row]) -> list[Row]:
    """The rows that people quote and that are not among ``rows``."""
    there = {(row.backend, row.model) for row in rows}
    return [
        Row(backend, model, Status.NOT_RUN)
        for backend, models in QUOTED.items()
        for model in models
        if (backend, model) not in there
    ]


def _best(backend: str, paths: Sequence[Path]) -> Path:
    """The folder in the backend's own format, else a checkpoint that it converts, else any."""
    formats = [detect(path) for path in paths]
    for wanted in (BACKENDS[backend].format, "huggingface"):
        if wanted in formats:
            return paths[formats.index(wanted)]
    return paths[0]


def _named(settings: Settings, catalog: Catalog, name: str) -> Row:
    backend = catalog.backend
    try:
        if settings.pull and name not in catalog.registered:
            catalog.pull(name)
        model = catalog.resolve(name)
    except UnknownModel as error:
        hub_id = "/" in name and name not in catalog.registered
        if settings.pull or not (hub_id or name in names_for(backend)):
            note = error.message if name in catalog.registered else f"{backend} has no model {name!r}."
            return _row(settings, backend, name, Status.NOT_USABLE, note)
        note = f"`whisperd models pull {name} --backend {backend}` downloads it."
        return _row(settings, backend, name, Status.NOT_DOWNLOADED, note)
    except WhisperdError as error:
        return _row(settings, backend, name, Status.NOT_DOWNLOADED, error.message)
    return _runnable(settings, backend, model.name, model.path)


def _runnable(settings: Settings, backend: str, name: str, path: Path) -> Row:
    row = _row(settings, backend, name, Status.NOT_RUN, "")
    return replace(row, path=path, libraries=_versions(backend))


def _versions(backend: str) -> dict[str, str]:
    found = {}
    for library in _LIBRARIES.get(backend, ()):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # built by hand, perhaps
            found[library] = importlib.metadata.version(library)
    return found


def _row(settings: Settings, backend: str, name: str, status: Status, note: str) -> Row:
    return Row(backend, name, status, settings.device, settings.precision, note=note)
