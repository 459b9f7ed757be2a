"""A pull or a removal in a process of its own, which the server starts and may end at any moment.

``python -m app.worker.models pull|remove BACKEND HUB_DIR CACHE_DIR NAME`` keeps huggingface_hub out of the server's
own. It writes JSON objects to stdout, a line each: ``{"file", "done", "total"}`` as the download goes on, and in the
end ``{"path"}`` or ``{"freed"}`` (bytes), or ``{"error": {"code", "message", "param"}}``.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from app.catalog import Catalog
from app.errors import WhisperdError
from app.hub.download import Progress

#: Progress is told no more often than people can see.
_BETWEEN_REPORTS_S = 0.2


class _Reports:
    def __init__(self) -> None:
        self._file = ""
        self._next = 0.0

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if progress.file != self._file or progress.done == progress.total or now >= self._next:
            self._file, self._next = progress.file, now + _BETWEEN_REPORTS_S
            _tell(asdict(progress))


def main(action: str, backend: str, hub_dir: str, cache_dir: str, name: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's affair
    catalog = Catalog(backend, Path(hub_dir), name)
    try:
        if action == "pull":
            _tell({"path": str(catalog.pull(name, _Reports()))})
        else:
            _tell({"freed": catalog.remove(name, Path(cache_dir))})
    except WhisperdError as error:
        _tell({"error": {"code": error.code, "message": error.message, "param": error.param}})


def _tell(message: dict[str, Any]) -> None:
    # A server that is gone is noticed here, by the broken pipe.
    print(json.dumps(message), flush=True)  # noqa: T201 - the protocol


if __name__ == "__main__":
    main(*sys.argv[1:])
