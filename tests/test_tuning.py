"""How two ways of transcribing are compared: what counts as a word, and what as no worse."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.backends.base import StepResult, WindowResult
from app.errors import InvalidRequest
from app.settings import load_settings
from app.transcript import MAX_WINDOW, SAMPLE_RATE, Segment, Transcript, Window
from app.tuning import LEAST_WORDS, Comparison, verdict_of
from app.word_errors import words_of

WHOLE = Window(0, 2 * SAMPLE_RATE, ())
FITTED = WHOLE.fitted(3 * SAMPLE_RATE)
RERUN = Window(0, 2 * SAMPLE_RATE, (), MAX_WINDOW, retry=True)


def job(text: str, seconds: float, *results: WindowResult) -> Any:
    """What is looked at of a job that is over; a real one wants an event loop."""
    segment = Segment(0, 2, text, 0, (), 0.0, -0.1, 1.0, 0.0)
    return SimpleNamespace(
        transcript=Transcript("en", 2.0, (segment,)),
        inference_seconds=seconds,
        steps=[StepResult((result,), "en") for result in results],
    )


def compared(whole: str, fitted: str, reference: str | None = None) -> Comparison:
    comparison = Comparison()
    results = [WindowResult(FITTED, again=(RERUN,)), WindowResult(RERUN)]
    comparison.add(job(whole, 3.0, WindowResult(WHOLE)), job(fitted, 1.0, *results), reference)
    return comparison


def test_a_recording_is_counted_in_words_errors_seconds_and_reruns() -> None:
    found = compared("The cat sat.", "the CAT sat down", "A cat sat!")
    assert (found.words, found.differing, found.lost) == (3, 1, -1)
    assert (found.referenced, found.whole_errors, found.fitted_errors) == (3, 1, 2)
    assert (found.gain, found.windows, found.reruns) == (3.0, 1, 1)


def test_nobody_speaking_is_no_division_by_zero() -> None:
    assert Comparison().gain == 1
    assert not Comparison().fit
    assert not Comparison().enough


def test_with_references_errors_decide_and_chance_is_allowed_for() -> None:
    def judged(more: int, differing: int, words: int = 1000) -> bool:
        return Comparison(
            words=words, differing=differing, referenced=words, whole_errors=50, fitted_errors=50 + more
        ).no_worse

    assert judged(-20, 100)
    assert judged(3, 3), "0.3 % of the words"
    assert judged(19, 100), "of a hundred words that changed, so many may change for the worse"
    assert not judged(21, 100)
    assert not judged(4, 3)


def test_without_references_the_texts_must_agree_and_be_of_one_length() -> None:
    assert Comparison(words=1000, differing=50).no_worse
    assert not Comparison(words=1000, differing=51).no_worse
    assert Comparison(words=1000, differing=11, lost=10).no_worse
    assert not Comparison(words=1000, differing=11, lost=11).no_worse
    assert not Comparison(words=1000, differing=11, lost=-11).no_worse, "made up"


def test_what_gains_nothing_is_not_fitted() -> None:
    assert Comparison(words=300, whole_s=11, fitted_s=9.9).fit
    assert not Comparison(words=300, whole_s=10.8, fitted_s=10).fit


def test_too_little_speech_gives_no_verdict() -> None:
    settings = load_settings(backend="faster-whisper")
    with pytest.raises(InvalidRequest, match="199 words only; it takes 200"):
        verdict_of(Comparison(words=LEAST_WORDS - 1), settings, Path("/m"))
    assert verdict_of(Comparison(words=LEAST_WORDS), settings, Path("/m")).words == LEAST_WORDS


@given(st.text(), st.text())
def test_any_texts_can_be_compared(one: str, other: str) -> None:
    found = compared(one, other)
    assert found.differing >= abs(found.lost)
    assert found.words == len(words_of(one))
