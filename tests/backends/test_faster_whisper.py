"""What only faster-whisper does."""

from __future__ import annotations

import numpy as np
import pytest

from app.backends.base import LoadOptions
from app.backends.faster_whisper import FasterWhisper
from app.errors import BackendUnavailable, InferenceFailed
from app.transcript import SAMPLE_RATE, Options, Window
from tests.backends.test_contract import load, model_cache, pcm_of, transcribe_all, whole
from tests.conftest import clips, word_error_rate

__all__ = ["model_cache"]

pytest.importorskip("faster_whisper")


@pytest.fixture(scope="module")
def backend(model_cache):
    return load("faster-whisper", model_cache)


def test_the_macs_gpu_is_refused_with_what_to_use_instead(tmp_path):
    with pytest.raises(BackendUnavailable, match="mlx-whisper"):
        FasterWhisper().load(str(tmp_path), LoadOptions(device="mps"))


def test_beam_search_is_honoured(backend, monkeypatch):
    clip = clips("en003")[0]
    seen = []
    generate = backend._generate
    monkeypatch.setattr(backend, "_generate", lambda *args, **how: seen.append(how) or generate(*args, **how))
    pcm = pcm_of(clip.path)
    text = transcribe_all(backend, pcm, whole(pcm), Options(language="en", beam_size=3))
    assert word_error_rate([clip.text], [text]) == 0
    assert seen == [{"beam_size": 3}]


def test_the_librarys_words_do_not_reach_the_user(backend, monkeypatch):
    def broken(*_):
        raise RuntimeError("the user's own words")

    monkeypatch.setattr(backend, "_encode", broken)
    with pytest.raises(InferenceFailed) as caught:
        backend.transcribe(np.zeros(SAMPLE_RATE, np.int16), [Window(0, SAMPLE_RATE, ())], Options(language="en"))
    assert "own words" not in caught.value.message
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("error", [IndexError, ValueError])
def test_where_the_alignment_stumbles_the_segments_come_without_words(backend, monkeypatch, error):
    def broken(*_):
        raise error

    monkeypatch.setattr(backend, "_add_words", broken)
    pcm = pcm_of(clips("en003")[0].path)
    segments = backend.transcribe(pcm, [whole(pcm)], Options(language="en", words=True)).windows[0].segments
    assert segments
    assert all(segment.words == () for segment in segments)


def test_figures_that_are_no_numbers_never_leave(backend, monkeypatch):
    import app.backends.faster_whisper as module

    attempt = module._attempt

    def broken(*args):
        return __import__("dataclasses").replace(attempt(*args), avg_logprob=float("nan"))

    monkeypatch.setattr(module, "_attempt", broken)
    pcm = pcm_of(clips("en003")[0].path)
    with pytest.raises(InferenceFailed, match="not numbers"):
        backend.transcribe(pcm, [whole(pcm)], Options(language="en"))


def test_the_test_set_is_understood_as_well_as_the_library_does_it(backend):
    said, heard = [], []
    for clip in clips():
        pcm = pcm_of(clip.path)
        said.append(clip.text)
        heard.append(transcribe_all(backend, pcm, whole(pcm), Options(language=clip.language)))
    # The library itself, called directly on the same clips: 2.0 %.
    assert word_error_rate(said, heard) <= 0.035


def test_warming_up_needs_nothing_but_a_loaded_model(backend):
    backend.warm_up()
