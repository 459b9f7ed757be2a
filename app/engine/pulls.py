"""Downloads and removals that the server does for its operator, each in a child process; one download at a time.

A pull belongs to nobody: it goes on when the caller who started it hangs up, and who asks for the same model meets it.
At shutdown it is ended; what it has of a model stays on the disk, and the next pull goes on there.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import TaskGroup
from anyio.streams.text import TextReceiveStream

from app.catalog import Catalog
from app.engine.device import known
from app.errors import BackendUnavailable, Conflict, ShuttingDown, WhisperdError, error_from_code
from app.hub.download import Progress
from app.log import event
from app.model_names import Source


class Pull:
    """A download: ``progress`` is None until bytes are counted, ``error`` None unless it failed; ``change`` is set, and
    replaced, whenever something is new.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.progress: Progress | None = None
        self.error: WhisperdError | None = None
        self.over = False
        self.scope = anyio.CancelScope()
        self.change = anyio.Event()

    def changed(self) -> None:
        self.change.set()
        self.change = anyio.Event()

    def end(self, error: WhisperdError | None) -> None:
        self.error, self.over = error, True
        self.scope.cancel()
        self.changed()

    async def finished(self) -> None:
        """Wait for the end. Raises the error it failed with."""
        while not self.over:
            await self.change.wait()
        if self.error is not None:
            raise self.error


class Pulls:
    """The one place of the server that changes what models are on this machine."""

    def __init__(self, catalog: Catalog, conversions: Path) -> None:
        self._catalog = catalog
        self._conversions = conversions
        self._pulls: dict[Source, Pull] = {}
        self._turn = anyio.Lock()
        self._tasks: TaskGroup | None = None

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Pulls]:
        async with anyio.create_task_group() as self._tasks:
            try:
                yield self
            finally:
                self.stop()

    def start(self, name: str) -> Pull:
        """The download of a model: the one that runs already, or a new one.

        Raises ``UnknownModel``, and ``ShuttingDown`` at the end.
        """
        source = self._catalog.source_of(name)
        if source is None:  # nothing to download: here, or not
            self._catalog.resolve(name)
            pull = Pull(name)
            pull.end(None)
            return pull
        if self._tasks is None:
            raise ShuttingDown("The server is shutting down.")
        if source not in self._pulls:
            self._pulls[source] = Pull(name)
            self._tasks.start_soon(self._run, source, self._pulls[source])
        return self._pulls[source]

    async def remove(self, name: str) -> int:
        """Remove a model's downloads; returns the bytes freed. Raises as ``Catalog.remove`` does."""
        if any(source in self._pulls for source in self._catalog.downloads(name)):
            raise Conflict(f"The model {name!r} is being downloaded; remove it when that is over.", param="model")
        freed = int((await self._child("remove", name))["freed"])
        event("model removed", model=name, bytes=freed)
        return freed

    def stop(self) -> None:
        """End every download now, and take no more."""
        self._tasks = None
        for pull in list(self._pulls.values()):
            pull.end(ShuttingDown("The server is shutting down; pull the model again, it goes on where it stopped."))

    async def _run(self, source: Source, pull: Pull) -> None:
        def tell(message: dict[str, Any]) -> None:
            pull.progress = Progress(**message)
            pull.changed()

        error: WhisperdError | None = None
        with pull.scope:
            try:
                async with self._turn:
                    event("pull begins", model=pull.name)
                    await self._child("pull", pull.name, tell)
            except Exception as problem:  # noqa: BLE001 - a bug must cost its pull alone, not the server
                error = known(problem)
        del self._pulls[source]
        if not pull.over:
            event("pull ends", model=pull.name, reason=error.message if error else "done")
            pull.end(error)

    async def _child(
        self, action: str, name: str, tell: Callable[[dict[str, Any]], None] = lambda _: None
    ) -> dict[str, Any]:
        """The child's last word; ``tell`` gets its progress. Raises the error that it names; ends with the caller."""
        catalog = self._catalog
        arguments = [action, catalog.backend, str(catalog.cache_dir), str(self._conversions), catalog.meant(name)]
        # -P: the folder that the server was started in may have an ``app`` of its own.
        command = [sys.executable, "-P", "-m", "app.worker.models", *arguments]
        rest, last = "", dict[str, Any]()
        try:
            async with await anyio.open_process(command, stdin=subprocess.DEVNULL, stderr=None) as process:
                assert process.stdout is not None
                async for text in TextReceiveStream(process.stdout):
                    *lines, rest = (rest + text).split("\n")
                    for last in map(json.loads, lines):
                        if "file" in last:
                            tell(last)
        except OSError as error:
            raise BackendUnavailable("The server cannot start another process right now.") from error
        if "error" in last:
            raise error_from_code(**last["error"])
        if not last or "file" in last:
            raise BackendUnavailable("The process that manages models ended unexpectedly; try it again.")
        return last
