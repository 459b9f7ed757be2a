"""The in-process door: the engine without HTTP, for people who embed it and for the command line.

with Transcriber(model="large-v3-turbo") as transcriber:
    print(transcriber.transcribe("talk.m4a").text)
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from anyio.from_thread import BlockingPortal, start_blocking_portal

from app.engine.build import catalog_of, engine_of
from app.engine.device import MarginOf
from app.engine.engine import Engine
from app.engine.job import Job, Work
from app.errors import UndecodableAudio
from app.settings import Settings, load_settings
from app.transcript import Options, Transcript

#: Called with the seconds transcribed and the recording's seconds as far as known.
OnProgress = Callable[[float, float], None]


class Transcriber:
    """A model kept warm in a worker process while the context is open; use it from one thread.

    Takes a ``Settings``, or its fields as keywords; ``margin_of`` overrides which models' windows they fit. Entering
    raises ``SettingsError`` and ``UnknownModel``.
    """

    def __init__(self, settings: Settings | None = None, *, margin_of: MarginOf | None = None, **fields: Any) -> None:
        self._settings = settings or load_settings(**fields)
        self._margin_of = margin_of
        self._catalog = catalog_of(self._settings)
        self._exit = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self._portal: BlockingPortal = stack.enter_context(start_blocking_portal())
            running = self._portal.wrap_async_context_manager(engine_of(self._settings, self._catalog, self._margin_of))
            self._engine: Engine = stack.enter_context(running)
            self._exit = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._exit.close()

    def transcribe(
        self, path: str | Path, options: Options | None = None, *, on_progress: OnProgress | None = None
    ) -> Transcript:
        """The transcript of the audio or video file at ``path``. Raises the errors of ``app.errors``."""
        transcript = self.run(path, options, on_progress=on_progress).transcript
        assert transcript is not None
        return transcript

    def run(self, path: str | Path, options: Options | None = None, *, on_progress: OnProgress | None = None) -> Job:
        """As ``transcribe``, but the whole job, which is over: its ``transcript``, device seconds and steps."""
        source = Path(path)
        if not source.is_file():
            raise UndecodableAudio(f"There is no file {str(path)!r}.")
        options = options or Options(beam_size=self._settings.beam_size)
        return self._portal.call(self._run, source.resolve(), options, on_progress)

    async def _run(self, source: Path, options: Options, on_progress: OnProgress | None) -> Job:
        model = self._catalog.resolve("")
        work = Work(options, str(model.path), model.name)
        with self._engine.admit() as upload:
            upload.source = source
            with self._engine.submit(upload, work) as job:
                async for _ in job.segments():
                    if on_progress is not None:
                        on_progress(job.progress.done_s, job.progress.expected_s)
                await job.result()
                return job
