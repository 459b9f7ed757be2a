"""Subtitles of a recording of several windows, as other people's parsers read them."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import timedelta

import pytest

from tests.conftest import Recording, Server

#: A caption as (start, end, text), times in seconds.
Captions = list[tuple[float, float, str]]


def read_srt(body: str) -> Captions:
    srt = pytest.importorskip("srt", reason="srt is not installed (extra 'clients')")
    captions = list(srt.parse(body))
    assert [caption.index for caption in captions] == list(range(1, len(captions) + 1))
    return [(_seconds(each.start), _seconds(each.end), each.content) for each in captions]


def _seconds(time: timedelta) -> float:
    return time.total_seconds()


def read_vtt(body: str) -> Captions:
    webvtt = pytest.importorskip("webvtt", reason="webvtt-py is not installed (extra 'clients')")
    return [(_clock(each.start), _clock(each.end), each.text) for each in webvtt.from_buffer(io.StringIO(body))]


def _clock(time: str) -> float:
    # The parser's own start_in_seconds is cut to whole seconds.
    hours, minutes, seconds = time.split(":")
    return 3600 * int(hours) + 60 * int(minutes) + float(seconds)


@pytest.mark.parametrize(("name", "read"), [("srt", read_srt), ("vtt", read_vtt)], ids=["srt", "vtt"])
def test_subtitles_are_read_as_they_were_meant(
    server: Server, long_recording: Recording, name: str, read: Callable[[str], Captions]
) -> None:
    captions = read(server.transcribe(long_recording.path, response_format=name).text)
    whole = server.transcribe(long_recording.path, response_format="verbose_json").json()
    assert len(captions) == len(whole["segments"]) > 10
    times = [time for start, end, _ in captions for time in (start, end)]
    assert times == sorted(times)
    assert times[-1] <= whole["duration"]
    assert all(start < end for start, end, _ in captions)
    assert " ".join(text.strip() for _, _, text in captions) == whole["text"]
