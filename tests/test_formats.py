from __future__ import annotations

import json

from app.formats import FORMATS
from app.transcript import Segment, Transcript, Word

WORDS = (Word("Hello,", 0.1, 0.5, 0.9), Word("you.", 0.6, 1.0, 0.8))
TRANSCRIPT = Transcript(
    language="de",
    duration=3661.25,
    segments=(
        Segment(0.0, 1.5, " Hello,\nyou & <me>.", 0, (50364, 1, 50439), 0.0, -0.25, 1.1, 0.01, WORDS),
        Segment(1.5, 1.5, " ", 0, (), 0.0, -0.25, 0.0, 0.01),
        Segment(3600.0, 3661.2504, " Bye.", 360000, (2,), 0.2, -0.5, 0.9, 0.02),
    ),
)
EMPTY = Transcript(language="en", duration=2.0, segments=())
BOTH = frozenset({"word", "segment"})


def render(
    name: str, transcript: Transcript = TRANSCRIPT, granularities: frozenset[str] = frozenset({"segment"})
) -> str:
    return FORMATS[name].render(transcript, granularities)


def test_json_is_the_text_and_the_duration_rounded_up() -> None:
    assert json.loads(render("json")) == {
        "text": "Hello,\nyou & <me>.  Bye.",
        "usage": {"type": "duration", "seconds": 3662},
    }


def test_text_is_the_bare_text() -> None:
    assert render("text", EMPTY) == "\n"


def test_srt_numbers_its_cues_and_leaves_empty_ones_out() -> None:
    assert render("srt") == (
        "1\n00:00:00,000 --> 00:00:01,500\nHello, you & <me>.\n\n2\n01:00:00,000 --> 01:01:01,250\nBye.\n"
    )


def test_vtt_has_its_header_even_when_empty_and_escapes_its_text() -> None:
    assert render("vtt", EMPTY) == "WEBVTT\n"
    assert render("vtt") == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nHello, you &amp; &lt;me&gt;.\n\n01:00:00.000 --> 01:01:01.250\nBye.\n"
    )


def test_verbose_json_names_the_language_in_english_and_has_all_segment_fields() -> None:
    body = json.loads(render("verbose_json"))
    assert (body["task"], body["language"], body["language_code"], body["duration"]) == (
        "transcribe",
        "german",
        "de",
        3661.25,
    )
    assert body["segments"][0] == {
        "id": 0, "seek": 0, "start": 0.0, "end": 1.5, "text": " Hello,\nyou & <me>.", "tokens": [50364, 1, 50439],
        "temperature": 0.0, "avg_logprob": -0.25, "compression_ratio": 1.1, "no_speech_prob": 0.01,
    }  # fmt: skip
    assert "words" not in body


def test_words_and_segments_are_there_exactly_when_asked_for() -> None:
    words = json.loads(render("verbose_json", granularities=frozenset({"word"})))
    assert "segments" not in words
    assert words["words"][0] == {"word": "Hello,", "start": 0.1, "end": 0.5}
    both = json.loads(render("verbose_json", granularities=BOTH))
    assert len(both["words"]) == 2
    assert len(both["segments"]) == 3
