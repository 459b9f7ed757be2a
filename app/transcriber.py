"""The in-process door: the engine without HTTP, for people who embed it and for the command line.

with Transcriber(model="large-v3-turbo") as transcriber:
    print(transcriber.transcribe("talk.m4a", language="en").text)
    for segment in transcriber.segments("talk.m4a"):
        print(segment.start, segment.text)
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import AsyncGenerator, Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Literal, Self, TypedDict, Unpack

import anyio.to_thread
from anyio.from_thread import BlockingPortal, start_blocking_portal

from app.catalog import can_translate
from app.engine.admission import Upload
from app.engine.build import catalog_of, engine_of
from app.engine.device import MarginOf
from app.engine.engine import Engine
from app.engine.job import Job, Work
from app.engine.worker import Worker
from app.errors import InvalidRequest, StorageFull, UndecodableAudio
from app.languages import language_code
from app.settings import Settings, load_settings
from app.transcript import Options, Segment, Transcript

#: Called with the seconds transcribed and the recording's seconds as far as known.
OnProgress = Callable[[float, float], None]
#: The path of an audio or video file, its bytes, or a file opened in binary mode, which is read from where it stands.
Source = str | Path | bytes | BinaryIO


class Asked(TypedDict, total=False):
    """What may be asked of the model, as keywords.

    ``language`` is a code or an English name, detected where missing; ``languages`` are those to choose from then;
    ``prompt`` has names and words to expect; ``task`` ``translate`` means into English; ``temperature`` from 0 (greedy,
    warmer where that fails) to 1; ``words`` asks for word times, ``logprobs`` for every token's log-probability;
    ``beam_size`` beams where the backend has them, as in the settings if missing.
    """

    language: str | None
    languages: tuple[str, ...]
    prompt: str
    task: Literal["transcribe", "translate"]
    temperature: float
    words: bool
    logprobs: bool
    beam_size: int


class Transcriber:
    """A model kept warm in a worker process while the context is open. Threads may share it: recordings take turns.

    Takes a ``Settings``, or its fields as keywords; ``margin_of`` overrides which models' windows are fitted. Entering
    raises ``SettingsError`` and ``UnknownModel``; all that transcribes raises the errors of ``app.errors``.
    """

    def __init__(self, settings: Settings | None = None, *, margin_of: MarginOf | None = None, **fields: Any) -> None:
        self._settings = settings or load_settings(**fields)
        self._margin_of = margin_of
        self._catalog = catalog_of(self._settings)
        self._exit = contextlib.ExitStack()
        self._running: tuple[BlockingPortal, Engine] | None = None

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            portal = stack.enter_context(start_blocking_portal())
            engine = engine_of(self._settings, self._catalog, self._margin_of)
            self._running = portal, stack.enter_context(portal.wrap_async_context_manager(engine))
            self._exit = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._running = None
        self._exit.close()

    def transcribe(
        self, source: Source, *, on_progress: OnProgress | None = None, **asked: Unpack[Asked]
    ) -> Transcript:
        """The whole transcript of ``source``; to iterate over it gives its segments."""
        transcript = self.run(source, self.options(**asked), on_progress=on_progress).transcript
        assert transcript is not None
        return transcript

    def segments(
        self, source: Source, *, on_progress: OnProgress | None = None, **asked: Unpack[Asked]
    ) -> Iterator[Segment]:
        """The segments of ``source`` in order of time, each as soon as it is final.

        Work begins with the first ``next``; closing the iterator before its end cancels what is left.
        """
        options = self.options(**asked)

        def iterate() -> Iterator[Segment]:
            portal, engine = self._entered
            steps = self._steps(engine, source, options)
            try:
                while (step := portal.call(anext, steps, None)) is not None:
                    job, fresh = step
                    _report(job, on_progress)
                    yield from fresh
            finally:
                portal.call(steps.aclose)

        return iterate()

    def run(self, source: Source, options: Options, *, on_progress: OnProgress | None = None) -> Job:
        """The whole job, which is over: its ``transcript``, device seconds and steps."""
        portal, engine = self._entered
        return portal.call(self._run, engine, source, options, on_progress)

    def options(self, **asked: Unpack[Asked]) -> Options:
        """The keywords as ``Options``. Raises ``InvalidRequest`` for what cannot be asked."""
        temperature = asked.get("temperature", 0.0)
        if not 0 <= temperature <= 1:
            raise InvalidRequest("The temperature is a number from 0 to 1.", param="temperature")
        language = language_code(asked.get("language"))
        candidates = (language_code(each) for each in asked.get("languages", ()))
        return Options(
            task=asked.get("task", "transcribe"),
            language=language,
            languages=() if language else tuple(code for code in candidates if code),
            prompt=asked.get("prompt", ""),
            temperature=temperature,
            words=asked.get("words", False),
            logprobs=asked.get("logprobs", False),
            beam_size=asked.get("beam_size", self._settings.beam_size),
        )

    @property
    def worker(self) -> Worker:
        """The handle of the process that runs the model, to be looked at: what it loaded, what memory it takes."""
        return self._entered[1].device.relay.worker

    @property
    def _entered(self) -> tuple[BlockingPortal, Engine]:
        if self._running is None:
            raise RuntimeError("A Transcriber works inside its context: `with Transcriber(...) as transcriber:`.")
        return self._running

    async def _run(self, engine: Engine, source: Source, options: Options, on_progress: OnProgress | None) -> Job:
        async with contextlib.aclosing(self._steps(engine, source, options)) as steps:
            async for job, _ in steps:
                _report(job, on_progress)
        return job

    async def _steps(
        self, engine: Engine, source: Source, options: Options
    ) -> AsyncGenerator[tuple[Job, tuple[Segment, ...]]]:
        """The job after each of its steps, and the segments that are final with it; leaving early leaves the job."""
        model = self._catalog.resolve("")
        if options.task == "translate" and not can_translate(model):
            raise InvalidRequest(f"The model {model.name!r} was not trained to translate.", param="model")
        with engine.admit(len(source) if isinstance(source, bytes) else 0) as upload:
            if isinstance(source, str | Path):
                upload.source = _existing(Path(source))
            else:
                await anyio.to_thread.run_sync(_store, source, upload)
            with engine.submit(upload, Work(options, str(model.path), model.name)) as job:
                async for fresh in job.segments():
                    yield job, fresh


def _report(job: Job, on_progress: OnProgress | None) -> None:
    if on_progress is not None:
        on_progress(job.progress.done_s, job.progress.expected_s)


def _existing(path: Path) -> Path:
    """The absolute path, since children work elsewhere."""
    if not path.is_file():
        raise UndecodableAudio(f"There is no file {str(path)!r}.")
    return path.resolve()


def _store(source: bytes | BinaryIO, upload: Upload) -> None:
    """Write what has no path into the job's own folder, which goes with the job."""
    opened = BytesIO(source) if isinstance(source, bytes) else source
    upload.source.touch(0o600)
    try:
        with upload.source.open("wb") as file:
            shutil.copyfileobj(opened, file)
    except TypeError:
        raise InvalidRequest("The file is open as text; open it in binary mode, as in open(path, 'rb').") from None
    except OSError as error:
        raise StorageFull.of(error) from error
