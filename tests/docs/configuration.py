"""docs/configuration.md, made from ``Settings``: ``python -m tests.docs.configuration``."""

from __future__ import annotations

from pathlib import Path

from pydantic.fields import FieldInfo

from app.commands.flags import _NO_FLAG
from app.settings import Settings

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
#: A file as people write it; the tests load it.
EXAMPLE = """\
host = "0.0.0.0"
model = "large-v3-turbo"
fallback = "faster-whisper"
keep_warm_s = 900

[models]
ours = "/Users/me/models/fine-tuned"
"""
_HEAD = """\
# Configuration

Every setting can be given in four places; the first that says something counts:

1. a flag: `whisperd serve --queue-jobs 16` (no value for those that are yes or no: `--no-auth`)
2. a variable: `WHISPERD_QUEUE_JOBS=16`, `WHISPERD_NO_AUTH=true`; an empty one says nothing
3. a line in the configuration file: `queue_jobs = 16`, `no_auth = true`
4. the default

The file is `~/Library/Application Support/whisperd/config.toml` on a Mac, `~/.config/whisperd/config.toml` on Linux,
or the one that `WHISPERD_CONFIG` names. It is TOML:

```toml
{example}```

A value that cannot be used, and a name that is no setting, stop the start with a sentence. `whisperd serve --help`
lists the flags, `whisperd doctor` looks at what came of it all. Keys are no flags, since others would see them in the
list of processes: make them with `whisperd keys add NAME` ([SECURITY.md](../SECURITY.md)). What the limits mean, and
what a client hears of them: [operations.md](operations.md).

| setting | flag | default | |
|---|---|---|---|
"""
#: Defaults that depend on the machine or the user.
_PLACES = {
    "cache_dir": "`~/Library/Caches/whisperd`, `~/.cache/whisperd`",
    "hub_dir": "`~/.cache/huggingface/hub`",
    "keys_file": "`keys.json` beside the configuration file",
    "state_dir": "`~/Library/Application Support/whisperd`, `~/.local/state/whisperd`",
    "backend": "by machine",
    "model": "by machine and memory",
}


def page() -> str:
    rows = [_row(name, field) for name, field in Settings.model_fields.items()]
    return _HEAD.format(example=EXAMPLE) + "".join(rows)


def _row(name: str, field: FieldInfo) -> str:
    flag = "" if name in _NO_FLAG else f"`--{'no-' * (field.default is True)}{name.replace('_', '-')}`"
    default = {True: "yes", False: "no"}[field.default] if field.annotation is bool else f"{field.default}"
    if name in _PLACES:
        default = _PLACES[name]
    elif field.default in ("", None) or field.default_factory:
        default = "none"
    text = (field.description or "").replace("|", "\\|").replace("*", "\\*")
    return f"| `{name}` | {flag} | {default} | {text} |\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
