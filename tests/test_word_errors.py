"""What counts as a word, and as an error."""

from __future__ import annotations

import importlib.util

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import word_errors
from app.word_errors import OPENAI, PLAIN, differing, normalised, normaliser_name, words_of

needs_normaliser = pytest.mark.skipif(normaliser_name() != OPENAI, reason="whisper-normalizer is not installed")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't -- stop!", ["don't", "stop"]),
        ("Straße, 3 Äpfel", ["strasse", "3", "äpfel"]),
        ("今日は good", ["今", "日", "は", "good"]),
        ("...", []),
    ],
)
def test_words_have_no_case_and_no_punctuation(text: str, words: list[str]) -> None:
    assert words_of(text) == words


def test_words_changed_left_out_and_added_are_counted() -> None:
    assert differing(["a", "b", "c"], ["a", "x", "c", "d"]) == 2
    assert differing(["a", "b"], []) == 2


@needs_normaliser
@pytest.mark.parametrize(
    ("text", "language", "words"),
    [
        ("Press 1, don't!", "en", ["press", "one", "do", "not"]),
        ("Drücken Sie 1.", "de", ["drucken", "sie", "1"]),
        ("今日は", "ja", ["今", "日", "は"]),
    ],
)
def test_references_are_compared_in_the_spelling_of_openai_s_normaliser(
    text: str, language: str, words: list[str]
) -> None:
    assert [word.replace("ü", "u") for word in normalised(text, language)] == words


def test_without_the_normaliser_case_and_punctuation_are_left_out_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert word_errors.normaliser_name() == PLAIN
    assert normalised("Press 1, don't!", "en") == ["press", "1", "don't"]


@given(st.text(), st.text())
def test_any_texts_can_be_compared(one: str, other: str) -> None:
    words, others = words_of(one), words_of(other)
    assert abs(len(words) - len(others)) <= differing(words, others) <= max(len(words), len(others))
