"""``whisperd models``: list, download, convert and find models."""

from __future__ import annotations

import argparse
from pathlib import Path

from app.backends import BACKENDS
from app.catalog import Catalog
from app.commands.flags import add_settings, settings_of
from app.convert import FORMATS, convert, ensure
from app.engine.build import catalog_of
from app.errors import InvalidRequest, UnknownModel
from app.model_names import names_for

_SETTINGS = {"backend", "hub_dir", "cache_dir"}


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    listing = actions.add_parser("list", help="names that can be pulled, and which are here")
    listing.set_defaults(action=_list)

    pull = actions.add_parser("pull", help="download a model; a download that broke off goes on where it stopped")
    pull.add_argument("name", metavar="NAME", help="a name of `models list`, or a hub id such as openai/whisper-base")
    pull.set_defaults(action=_pull)

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

    for action in (listing, pull, path, conversion):
        add_settings(action, _SETTINGS)


def run(options: argparse.Namespace) -> int:
    options.action(options)
    return 0


def _list(options: argparse.Namespace) -> None:
    catalog = _catalog(options)
    here = {model.name: model for model in catalog.available()}
    print(f"Models for {catalog.backend}:")
    known = names_for(catalog.backend)
    for name in [*known, *(name for name in here if name not in known)]:
        print(f"  {name:18} {here[name].path if name in here else f'whisperd models pull {name}'}")
    print("  micro              bundled toy model: synthetic speech only")


def _pull(options: argparse.Namespace) -> None:
    print(_catalog(options).pull(options.name))


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
