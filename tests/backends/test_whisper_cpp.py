"""What only whisper.cpp's backend has: its vocabulary as a tokenizer, files that are damaged, devices."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from app import convert
from app.backends.base import LoadOptions
from app.backends.ggml_tokens import GgmlTokenizer, Vocabulary
from app.backends.tokens import prompt_tokens
from app.backends.whisper_cpp import WhisperCpp, _device
from app.errors import BackendUnavailable
from app.transcript import SAMPLE_RATE, Options, Window
from tests.backends.test_contract import MICRO, load, model_cache, pcm_of
from tests.conftest import AUDIO

__all__ = ["model_cache"]

#: A vocabulary of all bytes, a few words, and special tokens behind them.
WORDS = [bytes([byte]) for byte in range(256)] + [b" hear", b" hea", b"ing", b" \xe2\x82", b" (", b"\xe3\x81\x82"]
EOT = len(WORDS)
CPP = SimpleNamespace(
    whisper_token_eot=lambda _: EOT,
    whisper_token_sot=lambda _: EOT + 1,
    whisper_token_prev=lambda _: EOT + 2,
    whisper_token_translate=lambda _: EOT + 3,
    whisper_token_transcribe=lambda _: EOT + 4,
    whisper_token_lang=lambda _, number: EOT + 5 + number,
    whisper_token_beg=lambda _: EOT + 20,
    whisper_token_to_bytes=lambda _, token: WORDS[token],
)


def tokenizer(language: str = "en", number: int | None = 0, task: str = "transcribe") -> GgmlTokenizer:
    return GgmlTokenizer(Vocabulary(CPP, None), language, number, task)


def spelled(language: str, *tokens: bytes | int) -> list[tuple[str, int, int]]:
    return tokenizer(language).words([WORDS.index(t) if isinstance(t, bytes) else t for t in tokens])


def test_text_becomes_the_longest_tokens_that_spell_it_and_back():
    tokens = tokenizer().encode(" hearing é€!")
    assert [WORDS[token] for token in tokens][:3] == [b" hear", b"ing", b" "]
    assert tokenizer().decode(tokens) == " hearing é€!"
    assert tokenizer().encode("") == []


def test_half_a_character_is_a_replacement():
    assert tokenizer().decode([WORDS.index(b" \xe2\x82")]) == " \ufffd"


def test_the_prompt_ends_in_language_and_task_unless_the_model_knows_english_only():
    assert prompt_tokens(tokenizer("de", 2, "translate"), "") == (EOT + 1, EOT + 7, EOT + 3)
    assert prompt_tokens(tokenizer("en", None), "") == (EOT + 1,)
    assert prompt_tokens(tokenizer(), "hear")[:2] == (EOT + 2, WORDS.index(b" hear"))


def test_words_are_cut_at_spaces_and_keep_their_signs():
    assert spelled("en", EOT + 20, b" hear", b"ing", b".", b" hear", b"!", EOT + 40) == [
        (" hearing.", 1, 4),
        (" hear!", 4, 6),
    ]
    assert spelled("en", b" (", b" hear", b")") == [(" ( hear)", 0, 3)]


def test_tokens_that_spell_a_character_together_are_one():
    assert spelled("en", b" \xe2\x82", b"\xac", b" hear") == [(" €", 0, 2), (" hear", 2, 3)]


def test_without_spaces_each_character_is_a_word():
    assert spelled("ja", b"\xe3\x81\x82", b"\xe3\x81\x82", b"!") == [("あ", 0, 1), ("あ!", 1, 3)]


@pytest.mark.parametrize(
    ("asked", "built_for", "device"),
    [
        ("auto", "METAL = 1", "metal"),
        ("mps", "METAL = 1", "metal"),
        ("gpu", "CUDA : ARCHS", "cuda"),
        ("cpu", "", "cpu"),
    ],
)
def test_the_device_is_what_the_library_was_built_for(asked, built_for, device, monkeypatch):
    monkeypatch.setattr("sys.platform", "linux")
    assert _device(asked, built_for) == device


@pytest.mark.parametrize("asked", ["metal", "cuda", "gpu", "tpu"])
def test_a_device_that_is_not_there_is_named(asked, monkeypatch):
    monkeypatch.setattr("sys.platform", "linux")
    with pytest.raises(BackendUnavailable, match="cpu"):
        _device(asked, "AVX2 = 1")


@pytest.mark.parametrize("kept", [40, 100_000, 0.6, 0.999])
def test_a_damaged_file_is_a_sentence_and_no_crash(kept, model_cache, tmp_path):
    pytest.importorskip("_pywhispercpp")
    whole = (convert.ensure(MICRO, "ggml", model_cache) / "ggml-model.bin").read_bytes()
    (tmp_path / "ggml-model.bin").write_bytes(whole[: kept if kept > 1 else int(len(whole) * kept)])
    with pytest.raises(BackendUnavailable, match=tmp_path.name):
        WhisperCpp().load(str(tmp_path), LoadOptions(device="cpu"))


def test_a_precision_is_refused():
    pytest.importorskip("_pywhispercpp")
    with pytest.raises(BackendUnavailable, match="file"):
        WhisperCpp().load(str(MICRO), LoadOptions(device="cpu", precision="int8"))


def test_a_language_is_heard_the_same_whatever_was_encoded_before(model_cache):
    backend = load("whisper.cpp", model_cache)
    assert isinstance(backend, WhisperCpp)
    pcm = pcm_of(AUDIO / "de000.flac")
    heard = []
    for before in (4, 30, 15):
        backend.transcribe(pcm, [Window(0, SAMPLE_RATE, (), before * SAMPLE_RATE)], Options(temperature=1.0))
        heard.append(backend._detect(backend._encode([pcm.astype(np.float32) / 32768], 800)))
    assert heard[0] == heard[1] == heard[2]
