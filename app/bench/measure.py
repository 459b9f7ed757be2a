"""Measure a row: a worker of its own, a warm-up, then rounds over the recordings, one after the other."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median

from app.backends import BACKENDS
from app.bench.row import Figures, Row, Status
from app.bench.usage import Watch, memory_kind
from app.convert import ensure
from app.engine.job import Job
from app.errors import (
    AudioTooLong,
    AudioTooShort,
    InvalidRequest,
    UndecodableAudio,
    UnsupportedAudio,
    WhisperdError,
    WorkerDied,
)
from app.recordings import SAMPLE, Recording
from app.settings import Settings
from app.transcriber import Transcriber
from app.transcript import MAX_WINDOW, Options
from app.word_errors import differing, normalised

#: Recordings of at most so many seconds count as dictations.
SHORT_S = 5.0
#: What is wrong with a recording, whoever transcribes it.
_BAD_RECORDING = (AudioTooLong, AudioTooShort, UndecodableAudio, UnsupportedAudio)
#: A process is started within so many seconds, or never.
_START_S = 30.0


@dataclass(frozen=True, slots=True)
class _Run:
    """One recording, transcribed once in ``seconds``, file to text."""

    recording: Recording
    job: Job
    seconds: float

    @property
    def audio_s(self) -> float:
        return self.job.transcript.duration if self.job.transcript else 0.0


def measure(
    row: Row, settings: Settings, recordings: Sequence[Recording], rounds: int, on_recording: Callable[[], None]
) -> Row:
    """The row with its figures, or ``failed`` with a sentence; ``on_recording`` is called after each, ``rounds`` times.

    Raises ``InvalidRequest`` where it is a recording that cannot be transcribed.
    """
    measured = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    try:
        figures = _figures(row, settings, recordings, rounds, on_recording)
    except _Unusable as error:
        raise InvalidRequest(str(error)) from error
    except WhisperdError as error:
        return replace(row, status=Status.FAILED, note=error.message, measured=measured)
    return replace(row, status=Status.MEASURED, figures=figures, measured=measured)


class _Unusable(Exception):
    """A sentence on a recording that nobody can transcribe."""


def _figures(
    row: Row, settings: Settings, recordings: Sequence[Recording], rounds: int, on_recording: Callable[[], None]
) -> Figures:
    own = settings.model_copy(update={"backend": row.backend, "model": str(row.path), "fallback": ""})
    format_ = BACKENDS[row.backend].format
    if format_ and row.path:  # a checkpoint is converted before anything is counted
        ensure(row.path, format_, settings.cache_dir)
    with Transcriber(own) as transcriber:
        pid = _worker_pid(transcriber)
        with Watch(pid, kind := memory_kind([pid])) as watch:
            _run(transcriber, Recording(SAMPLE, language="en"), own)
            found: list[list[_Run]] = [[] for _ in range(rounds)]
            for runs in found:
                for recording in recordings:
                    runs.append(_run(transcriber, recording, own))
                    on_recording()
            if transcriber.worker.peak:  # the library's word on its memory comes after a job: before the next is over
                _run(transcriber, Recording(SAMPLE, language="en"), own)
        return _summary(transcriber, found, watch.peak, kind)


def _worker_pid(transcriber: Transcriber) -> int:
    deadline = time.monotonic() + _START_S
    while (pid := transcriber.worker.pid) is None:
        if transcriber.worker.state != "starting" or time.monotonic() > deadline:
            transcriber.run(SAMPLE, Options(language="en"))  # raises what was wrong
            raise WorkerDied("The worker could not be started.")
        time.sleep(0.005)
    return pid


def _run(transcriber: Transcriber, recording: Recording, settings: Settings) -> _Run:
    options = Options(language=recording.language, beam_size=settings.beam_size)
    started = time.monotonic()
    try:
        job = transcriber.run(recording.path, options)
    except _BAD_RECORDING as error:
        raise _Unusable(f"{recording.path.name} cannot be transcribed: {error.message}") from error
    return _Run(recording, job, time.monotonic() - started)


def _summary(transcriber: Transcriber, rounds: Sequence[Sequence[_Run]], memory: int, kind: str) -> Figures:
    worker = transcriber.worker
    assert worker.loaded is not None, "it transcribed"
    rounds_s = tuple(round(sum(run.seconds for run in runs), 4) for runs in rounds)
    short = [run.seconds for runs in rounds for run in runs if run.audio_s <= SHORT_S]
    counts = [_words(run) for run in rounds[0] if run.recording.reference is not None]
    results = [result for run in rounds[0] for step in run.job.steps for result in step.windows]
    return Figures(
        device=worker.loaded.info.device,
        precision=worker.loaded.info.precision,
        load_s=round(worker.loaded.load_seconds + worker.loaded.warm_up_seconds, 3),
        rounds_s=rounds_s,
        seconds=median(rounds_s),
        audio_s=round(sum(run.audio_s for run in rounds[0]), 3),
        short_s=round(median(short), 4) if short else None,
        memory=memory,
        memory_kind=kind,
        library_peak=worker.peak,
        words=sum(words for words, _ in counts),
        errors=sum(errors for _, errors in counts),
        fitted=any(result.window.encoded < MAX_WINDOW for result in results),
    )


def _words(run: _Run) -> tuple[int, int]:
    """Words of the reference, and errors against it."""
    transcript, recording = run.job.transcript, run.recording
    assert transcript is not None
    assert recording.reference is not None
    language = recording.language or transcript.language
    wanted = normalised(recording.reference, language)
    return len(wanted), differing(wanted, normalised(transcript.text, language))
