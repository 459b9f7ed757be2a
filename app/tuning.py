"""Whether a model reads fitted windows as well as whole ones: both, interleaved, on the same recordings.

With references the two are judged by their errors; without, by how far they agree, since a model that cannot do with
short windows repeats itself or leaves things out.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path

from app.catalog import model_key
from app.engine.job import Job
from app.errors import InvalidRequest, WhisperdError
from app.fitting import Verdict
from app.recordings import Recording
from app.settings import Settings
from app.transcriber import Transcriber
from app.transcript import SAMPLE_RATE, Options
from app.word_errors import differing, words_of

#: Fewer words than this decide nothing.
LEAST_WORDS = 200
#: Errors more that are no harm, as a share of the words.
TOLERANCE = 0.003
#: Without references so many of the words may differ (3 % did with `base`, which made no more errors), ...
MAY_DIFFER = 0.05
#: ... and so many be lost or added.
MAY_BE_LOST = 0.01
#: A gain under this is not worth a word.
LEAST_GAIN = 1.1


@dataclass(slots=True)
class Comparison:
    """What was counted so far. ``errors`` are against references, as far as there are any."""

    words: int = 0
    differing: int = 0
    lost: int = 0
    referenced: int = 0
    whole_errors: int = 0
    fitted_errors: int = 0
    whole_s: float = 0.0
    fitted_s: float = 0.0
    windows: int = 0
    reruns: int = 0

    def add(self, whole: Job, fitted: Job, reference: str | None) -> None:
        """Take in a recording's two jobs."""
        texts = [words_of(job.transcript.text if job.transcript else "") for job in (whole, fitted)]
        self.words += len(texts[0])
        self.lost += len(texts[0]) - len(texts[1])
        self.differing += differing(*texts)
        if reference is not None:
            wanted = words_of(reference)
            self.referenced += len(wanted)
            self.whole_errors += differing(wanted, texts[0])
            self.fitted_errors += differing(wanted, texts[1])
        self.whole_s += whole.inference_seconds
        self.fitted_s += fitted.inference_seconds
        results = [result for step in fitted.steps for result in step.windows]
        self.windows += sum(not result.window.retry for result in results)
        self.reruns += sum(result.rerun for result in results)

    @property
    def gain(self) -> float:
        """How many times faster the fitted windows were, re-runs included."""
        return self.whole_s / self.fitted_s if self.fitted_s else 1.0

    @property
    def more_errors(self) -> int:
        """Errors that the fitted windows made more than the whole ones; negative where they made fewer."""
        return self.fitted_errors - self.whole_errors

    @property
    def enough(self) -> bool:
        return max(self.words, self.referenced) >= LEAST_WORDS

    @property
    def no_worse(self) -> bool:
        """Whether the texts lost nothing that chance does not explain: as many words changed for the better as for the
        worse, give or take two standard deviations."""
        if self.referenced:
            allowed = max(TOLERANCE * self.referenced, 2 * sqrt(self.differing))
            return self.more_errors <= allowed
        return self.differing <= MAY_DIFFER * self.words and abs(self.lost) <= MAY_BE_LOST * self.words

    @property
    def fit(self) -> bool:
        return self.no_worse and self.gain >= LEAST_GAIN


def compare(settings: Settings, recordings: Sequence[Recording], language: str | None = None) -> Iterator[Comparison]:
    """Transcribe each recording both ways, and yield what is known after it.

    Raises the errors of ``Transcriber``; ``InvalidRequest`` names a recording that cannot be transcribed.
    """
    margin = round(settings.fit_margin_s * SAMPLE_RATE)
    fit = False

    def run(recording: Recording, *, fitted: bool) -> Job:
        nonlocal fit
        fit = fitted
        options = Options(language=recording.language or language, beam_size=settings.beam_size)
        try:
            return transcriber.run(recording.path, options)
        except WhisperdError as error:
            raise InvalidRequest(f"{recording.path.name} cannot be transcribed: {error.message}") from error

    comparison = Comparison()
    alone = settings.model_copy(update={"fallback": ""})  # a verdict is one backend's
    with Transcriber(alone, margin_of=lambda _: margin if fit else None) as transcriber:
        for number, recording in enumerate(recordings):
            if number == 0:  # once uncounted, for the library to get warm
                run(recording, fitted=True)
            first = bool(number % 2)
            jobs = {fitted: run(recording, fitted=fitted) for fitted in (first, not first)}
            comparison.add(jobs[False], jobs[True], recording.reference)
            yield comparison


def verdict_of(comparison: Comparison, settings: Settings, model_path: Path) -> Verdict:
    """The comparison as it is stored. Raises ``InvalidRequest`` where there was too little speech."""
    if not comparison.enough:
        raise InvalidRequest(
            f"The recordings hold {comparison.words} words only; it takes {LEAST_WORDS} to tell the two apart."
        )
    return Verdict(
        backend=settings.backend,
        model=model_key(model_path),
        margin_s=settings.fit_margin_s,
        fit=comparison.fit,
        words=comparison.referenced or comparison.words,
        differing=comparison.more_errors if comparison.referenced else comparison.differing,
        windows=comparison.windows,
        reruns=comparison.reruns,
        gain=round(comparison.gain, 2),
        measured=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
