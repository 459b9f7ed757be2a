"""``whisperd models``: list, download, check, convert, find and remove models."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from app.backends import BACKENDS
from app.catalog import Catalog
from app.commands.flags import add_settings, settings_of
from app.convert import FORMATS, convert, ensure
from app.engine.build import catalog_of
from app.errors import InvalidRequest, UnknownModel
from app.hub import cache
from app.hub.cache import size_of
from app.hub.download import Progress, Report
from app.model_names import MICRO, names_for

_SETTINGS = {"backend", "hub_dir", "cache_dir"}


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    listing = actions.add_parser("list", help="names that can be pulled, and which are here")
    listing.add_argument("--json", action="store_true", help="as JSON: name, path or null, bytes on the disk")
    listing.set_defaults(action=_list)

    pull = actions.add_parser("pull", help="download a model; a download that broke off goes on where it stopped")
    pull.add_argument("name", metavar="NAME", help="a name of `models list`, or a hub id such as openai/whisper-base")
    pull.set_defaults(action=_pull)

    removal = actions.add_parser("remove", aliases=["rm"], help="remove a downloaded model and what was made of it")
    removal.add_argument("name", metavar="NAME")
    removal.set_defaults(action=_remove)

    check = actions.add_parser("verify", help="check downloads against their checksums; the exit code is 1 for damage")
    check.add_argument("name", metavar="NAME", nargs="?", help="one model only")
    check.set_defaults(action=_verify)

    path = actions.add_parser("path", help="print the folder of a model that is here")
    path.add_argument("name", metavar="NAME")
    path.set_defaults(action=_path)

    conversion = actions.add_parser(
        "convert", help="turn a Hugging Face checkpoint (your fine-tuned one, say) into what a backend loads"
    )
    conversion.add_argument("source", metavar="SRC", type=Path, help="folder with config.json and model.safetensors")
    conversion.add_argument(
        "--format", choices=[name for name in FORMATS if FORMATS[name].path], help="other than the backend's"
    )
    conversion.add_argument("--output", "-o", metavar="FOLDER", type=Path, help="a new folder (default: the cache)")
    conversion.set_defaults(action=_convert)

    for action in (listing, pull, removal, check, path, conversion):
        add_settings(action, _SETTINGS)


def run(options: argparse.Namespace) -> int:
    return int(options.action(options) or 0)


@contextlib.contextmanager
def pull_bar() -> Iterator[Report]:
    """A progress bar on a terminal, nothing elsewhere: what ``Catalog.pull`` reports to."""
    with tqdm(unit="B", unit_scale=True, disable=not sys.stderr.isatty()) as bar:

        def report(progress: Progress) -> None:
            bar.total = progress.total
            bar.set_description(progress.file, refresh=False)
            bar.update(progress.done - bar.n)

        yield report


def _list(options: argparse.Namespace) -> None:
    catalog = _catalog(options)
    here = {model.name: model.path for model in catalog.available()}
    rows = {name: here.get(name) for name in dict.fromkeys([*names_for(catalog.backend), *here])}
    sizes = {name: _size(path) for name, path in rows.items() if path is not None}
    if options.json:
        models = [{"name": name, "path": path and str(path), "bytes": sizes.get(name)} for name, path in rows.items()]
        print(json.dumps({"backend": catalog.backend, "models": models}, indent=1))
        return
    print(f"Models for {catalog.backend}:")
    for name, path in rows.items():
        size = _megabytes(sizes[name]) if path else ""
        print(f"  {name:20} {size:>10}  {path or f'whisperd models pull {name}'}")
    if MICRO not in rows:
        print(f"  {MICRO:20} {'':>10}  bundled toy model: synthetic speech only")


def _pull(options: argparse.Namespace) -> None:
    with pull_bar() as report:
        path = _catalog(options).pull(options.name, report)
    print(path)


def _remove(options: argparse.Namespace) -> None:
    settings = settings_of(options)
    freed = catalog_of(settings).remove(options.name, settings.cache_dir)
    print(f"{options.name} is removed: {_megabytes(freed)} are free again.")


def _verify(options: argparse.Namespace) -> int:
    catalog = _catalog(options)
    sources = catalog.downloads(options.name)
    damages = catalog.verify(options.name)
    unchecked = [
        f"The file {name} of {source.repo} has no checksum here, so only a pull can check it."
        for source in sources
        for name in cache.unchecked(source, catalog.cache_dir)
    ]
    well = "Every downloaded file is as the hub has it." if sources else "Nothing is downloaded."
    print("\n".join([*damages, *unchecked]) or well)
    return 1 if damages else 0


def _path(options: argparse.Namespace) -> None:
    print(_catalog(options).resolve(options.name).path)


def _convert(options: argparse.Namespace) -> None:
    settings = settings_of(options)
    wanted = options.format or BACKENDS[settings.backend].format
    if wanted is None:
        raise InvalidRequest(f"The backend {settings.backend} loads no weights.")
    source = options.source
    if not source.is_dir():
        try:
            source = catalog_of(settings).resolve(str(source)).path
        except UnknownModel:
            raise InvalidRequest(f"There is no folder {str(source)!r}, and no model of that name here.") from None
    print(convert(source, wanted, options.output) if options.output else ensure(source, wanted, settings.cache_dir))


def _catalog(options: argparse.Namespace) -> Catalog:
    return catalog_of(settings_of(options))


def _size(path: Path) -> int:
    """Bytes of a model, whose files may be links into the hub's blobs."""
    return sum(size_of(file.resolve()) for file in ([path] if path.is_file() else path.iterdir()))


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
