"""What only faster-whisper does."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from app.backends.base import LoadOptions
from app.backends.faster_whisper import FasterWhisper
from app.errors import BackendUnavailable, InferenceFailed, InvalidRequest
from app.transcript import SAMPLE_RATE, Options, Window, join_text
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


def test_a_translation_is_asked_for_in_the_decoders_prompt(backend, monkeypatch):
    works = []
    greedy = backend._greedy
    monkeypatch.setattr(backend, "_greedy", lambda work: works.append(work) or greedy(work))
    pcm = pcm_of(clips("de000")[0].path)
    backend.transcribe(pcm, [whole(pcm)], Options(language="de", task="translate"))
    start, language, task = (works[0].tokenizer.tokenizer.id_to_token(token) for token in works[0].prompt)
    assert (start, language, task) == ("<|startoftranscript|>", "<|de|>", "<|translate|>")


def test_a_model_of_english_only_refuses_to_translate_and_has_nothing_to_detect(backend, monkeypatch):
    pcm = pcm_of(clips("en003")[0].path)
    monkeypatch.setattr(backend, "_multilingual", False)
    monkeypatch.setattr(backend, "_tokenizers", {})
    monkeypatch.setattr(backend, "_detect", None)
    with pytest.raises(InvalidRequest, match="cannot translate") as caught:
        backend.transcribe(pcm, [whole(pcm)], Options(language="en", task="translate"))
    assert caught.value.param == "model"
    assert backend.transcribe(pcm, [whole(pcm)], Options(languages=("de", "tlh"))).language == "en"


def test_log_probabilities_come_behind_a_prompt_of_any_length(backend):
    pcm = pcm_of(clips("en003")[0].path)
    for prompt in ("a sister " * 200, "Words."):
        options = Options(language="en", prompt=prompt, logprobs=True)
        (result,) = backend.transcribe(pcm, [whole(pcm)], options).windows
        for segment in result.segments:
            assert join_text(token.token for token in segment.logprobs) == segment.text.strip()


def test_where_the_library_returns_no_logits_of_a_prefix_nothing_is_made_up(backend, monkeypatch):
    class Without:
        def __init__(self, model):
            self._model = model

        def __getattr__(self, name):
            return getattr(self._model, name)

        def generate(self, *args, **how):
            results = self._model.generate(*args, **how)
            return [SimpleNamespace(logits=[[]])] if how.get("return_logits_vocab") else results

    monkeypatch.setattr(backend, "_whisper", Without(backend._whisper))
    pcm = pcm_of(clips("en003")[0].path)
    with pytest.raises(InferenceFailed):
        backend.transcribe(pcm, [whole(pcm)], Options(language="en", logprobs=True))


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
        backend.transcribe(pcm, [Window(0, len(pcm), ((0, len(pcm)),))], Options(language="en"))


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
