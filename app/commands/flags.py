"""Settings as flags, made from ``Settings`` itself: a new setting is a flag without another line."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from pathlib import Path
from typing import Any

from app.settings import Settings, load_settings

#: Settings that are no flags: keys would show in the process list, tables do not fit on a line.
_NO_FLAG = frozenset({"admin_key", "api_key", "models"})


def add_settings(parser: argparse.ArgumentParser, names: Collection[str] | None = None) -> None:
    """Add a flag for each setting in ``names`` (all by default)."""
    group = parser.add_argument_group("settings", "each is also WHISPERD_<NAME> in the environment")
    for name, field in Settings.model_fields.items():
        if name in _NO_FLAG or (names is not None and name not in names):
            continue
        flag, text = f"--{name.replace('_', '-')}", (field.description or "").replace("%", "%%")
        if field.annotation is bool:
            if field.default:
                group.add_argument(
                    f"--no-{flag[2:]}", dest=name, action="store_false", default=None, help=f"do not {text}"
                )
            else:
                group.add_argument(flag, action="store_true", default=None, help=text)
        else:
            shown = "" if field.default_factory or field.default in ("", None) else f" (default {field.default})"
            group.add_argument(flag, metavar="VALUE", help=text + shown)


def settings_of(options: argparse.Namespace) -> Settings:
    """The settings that the command line, the environment and the file give together. Raises ``SettingsError``."""
    return load_settings(**_given(options))


def flags_of(options: argparse.Namespace) -> list[str]:
    """The settings among ``options`` as words of a command line that means the same in any folder. Raises
    ``SettingsError``.
    """
    given = _given(options)
    settings = load_settings(alone=True, **given)
    words: list[str] = []
    for name, value in given.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif name == "model" and value and value.startswith(("~", "./", "../")):
            words.append(f"--{flag}={Path(value).expanduser().absolute()}")
        elif value is not None:
            whole = getattr(settings, name)
            words.append(f"--{flag}={whole if isinstance(whole, Path) else value}")
    return words


def _given(options: argparse.Namespace) -> dict[str, Any]:
    """The settings among ``options``; None for those that were not given."""
    return {name: value for name, value in vars(options).items() if name in Settings.model_fields}
