"""A transcript as bytes of text: OpenAI's response formats, one function each. Pure.

A new format is a function and a row in ``FORMATS``.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from app.languages import language_name
from app.transcript import Segment, Transcript, Word

#: ``timestamp_granularities[]`` that may be asked for.
GRANULARITIES = frozenset({"segment", "word"})
#: Whisper's encoder makes one position of 20 ms.
POSITIONS_PER_SECOND = 50


@dataclass(frozen=True, slots=True)
class Format:
    """``render`` takes the transcript and the granularities asked for (only ``verbose_json`` looks at them)."""

    render: Callable[[Transcript, frozenset[str]], str]
    media_type: str


def to_json(transcript: Transcript, _: frozenset[str]) -> str:
    body: dict[str, Any] = {"text": transcript.text}
    if transcript.with_logprobs:
        body["logprobs"] = logprobs_body(transcript.segments)
    return dump({**body, "usage": _usage(transcript)})


def to_text(transcript: Transcript, _: frozenset[str]) -> str:
    return transcript.text + "\n"


def to_srt(transcript: Transcript, _: frozenset[str]) -> str:
    blocks = (
        f"{number}\n{_clock(start, ',')} --> {_clock(end, ',')}\n{text}\n"
        for number, (start, end, text) in enumerate(_cues(transcript), start=1)
    )
    return "\n".join(blocks)


def to_vtt(transcript: Transcript, _: frozenset[str]) -> str:
    blocks = (
        f"{_clock(start, '.')} --> {_clock(end, '.')}\n{_vtt_text(text)}\n" for start, end, text in _cues(transcript)
    )
    return "\n".join(["WEBVTT\n", *blocks])


def to_verbose_json(transcript: Transcript, granularities: frozenset[str]) -> str:
    """OpenAI's verbose shape; ``segments`` unless only words were asked for, ``words`` only where asked for."""
    body: dict[str, Any] = {
        "task": transcript.task,
        "language": language_name(transcript.language),
        "language_code": transcript.language,
        "duration": transcript.duration,
        "text": transcript.text,
    }
    if "word" in granularities:
        body["words"] = [{"word": w.word, "start": w.start, "end": w.end} for w in transcript.words]
    if "segment" in granularities or not granularities:
        body["segments"] = [segment_body(number, segment) for number, segment in enumerate(transcript.segments)]
    body["usage"] = _usage(transcript)
    return dump(body)


def from_verbose_json(text: str) -> Transcript:
    """The transcript that ``to_verbose_json`` wrote with segments, so that it can be written in any format.

    Words go to the segment in whose time they begin; no format holds their probability, which is 0 here, nor counts of
    tokens and the backend's name.
    """
    body = json.loads(text)
    words = deque(Word(row["word"], row["start"], row["end"], 0.0) for row in body.get("words", ()))
    ends = [*(row["start"] for row in body["segments"][1:]), math.inf]
    segments = [
        _segment(row, tuple(_begun_before(words, end))) for row, end in zip(body["segments"], ends, strict=False)
    ]
    return Transcript(body["language_code"], body["duration"], tuple(segments), body["task"])


def _begun_before(words: deque[Word], end: float) -> Iterator[Word]:
    """Take off ``words`` those that begin before ``end``."""
    while words and words[0].start < end:
        yield words.popleft()


def _segment(row: dict[str, Any], words: tuple[Word, ...]) -> Segment:
    """The inverse of ``segment_body``."""
    given = {name: value for name, value in row.items() if name not in ("id", "tokens")}
    return Segment(**given, tokens=tuple(row["tokens"]), words=words)


FORMATS: dict[str, Format] = {
    "json": Format(to_json, "application/json"),
    "text": Format(to_text, "text/plain; charset=utf-8"),
    "srt": Format(to_srt, "application/x-subrip; charset=utf-8"),
    "verbose_json": Format(to_verbose_json, "application/json"),
    "vtt": Format(to_vtt, "text/vtt; charset=utf-8"),
}


def logprobs_body(segments: Iterable[Segment]) -> list[dict[str, Any]]:
    """OpenAI's ``logprobs``: the segments' text tokens in order."""
    return [
        {"token": token.token, "logprob": token.logprob, "bytes": list(token.bytes)}
        for segment in segments
        for token in segment.logprobs
    ]


def token_usage(transcript: Transcript) -> dict[str, Any]:
    """OpenAI's ``usage`` in tokens: of audio the encoder's positions, of text what was prompted and decoded."""
    audio = math.ceil(transcript.duration * POSITIONS_PER_SECOND)
    text, output = transcript.prompt_tokens, transcript.decoded_tokens
    return {
        "type": "tokens",
        "input_tokens": audio + text,
        "input_token_details": {"text_tokens": text, "audio_tokens": audio},
        "output_tokens": output,
        "total_tokens": audio + text + output,
    }


def segment_body(number: int, segment: Segment) -> dict[str, Any]:
    """A segment as OpenAI's ``verbose_json`` has it."""
    return {
        "id": number,
        "seek": segment.seek,
        "start": segment.start,
        "end": segment.end,
        "text": segment.text,
        "tokens": list(segment.tokens),
        "temperature": segment.temperature,
        "avg_logprob": segment.avg_logprob,
        "compression_ratio": segment.compression_ratio,
        "no_speech_prob": segment.no_speech_prob,
    }


def _usage(transcript: Transcript) -> dict[str, Any]:
    return {"type": "duration", "seconds": math.ceil(transcript.duration)}


def dump(body: dict[str, Any]) -> str:
    """JSON as it goes out: readable text stays readable, and a figure that is no number is an error, not ``NaN``."""
    return json.dumps(body, ensure_ascii=False, allow_nan=False)


def _cues(transcript: Transcript) -> Iterator[tuple[float, float, str]]:
    """(start, end, text on one line) of each segment that says anything."""
    for segment in transcript.segments:
        if text := " ".join(segment.text.split()):
            yield segment.start, segment.end, text


def _clock(seconds: float, decimal_mark: str) -> str:
    """``HH:MM:SS,mmm``, rounded to the millisecond."""
    total = round(seconds * 1000)
    hours, rest = divmod(total, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    return f"{hours:02d}:{minutes:02d}:{rest // 1000:02d}{decimal_mark}{rest % 1000:03d}"


def _vtt_text(text: str) -> str:
    """Cue text with the three characters that WebVTT reserves escaped (W3C WebVTT 1, section 4.2.2)."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


class DeltaText:
    """Segments' texts as deltas that, joined, are the stripped text: white space waits until text follows it."""

    def __init__(self) -> None:
        self._begun = False
        self._held = ""

    def push(self, text: str) -> str:
        """What may be sent now; perhaps nothing."""
        text = self._held + text
        if not self._begun:
            text = text.lstrip()
        sent = text.rstrip()
        self._held = text[len(sent) :]
        self._begun = self._begun or bool(sent)
        return sent
