"""Logging of the HTTP process and, set up again, of each child: one line an event, ``key=value`` or JSON.

A line that is logged on behalf of a request, whoever logs it, ends in ``request`` and the request's id.
What a line may hold: names, sizes, times, codes. Never audio, text, prompts, keys or the names of files.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

logger = logging.getLogger("whisperd")
#: The request that is being answered, "" outside of any. Tasks that a request starts have it too.
request_id: ContextVar[str] = ContextVar("request_id", default="")

#: The log's file is put aside then, over the one before.
_FILE_BYTES = 10_000_000
#: Between two lines that say the same of a lasting shortage.
_RARELY_S = 10.0


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {key}={_plain(value)}" for key, value in _fields(record).items())
        line = f"{_time(record)} {record.levelname.lower():7} {_plain(record.getMessage())}{fields}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class _File(RotatingFileHandler):
    """A file for its user alone, which is put aside as ``.1`` once it is large."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, maxBytes=_FILE_BYTES, backupCount=1, encoding="utf-8")

    def _open(self) -> TextIOWrapper:
        return open(self.baseFilename, "a", encoding="utf-8", opener=_private)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def set_up(level: str, style: str = "text", file: Path | None = None) -> None:
    """Send every logger of this process to standard error, or to ``file``, at ``level``; ``style`` is ``text`` or
    ``json``. Raises ``OSError`` where the file cannot be written.
    """
    handler = _File(file) if file else logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if style == "json" else _Text())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # What the application did not catch has been logged without its text by then; uvicorn's traceback has it.
    logging.getLogger("uvicorn.error").addFilter(_no_traceback)
    logging.getLogger("asyncio").addFilter(_Rarely())
    for noisy in ("httpx", "httpcore", "huggingface_hub", "python_multipart", "asyncio"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLogger().level))


class _Rarely(logging.Filter):
    """One line in a while of what asyncio says, traceback and all, thousands of times a second where there are no
    descriptors left for the connections that wait.
    """

    def __init__(self) -> None:
        super().__init__()
        self._next = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.getMessage().startswith("socket.accept() out of system resource"):
            return True
        record.msg, record.args, record.exc_info = "no descriptors are left: connections wait", (), None
        due = record.created >= self._next
        if due:
            self._next = record.created + _RARELY_S
        return due


def _no_traceback(record: logging.LogRecord) -> bool:
    return record.exc_info is None


def event(message: str, level: int = logging.INFO, **fields: Any) -> None:
    """Log ``message`` with ``fields``."""
    logger.log(level, message, extra={"fields": fields})


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    given: dict[str, Any] = getattr(record, "fields", {})
    fields = {key: round(value, 3) if isinstance(value, float) else value for key, value in given.items()}
    if current := request_id.get():
        fields.setdefault("request", current)
    return fields


def _plain(value: Any) -> str:
    """A value on one line, with control characters escaped and quoted where it holds spaces."""
    text = str(value)
    if not text.isprintable():
        text = text.encode("unicode_escape").decode()
    return text


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
