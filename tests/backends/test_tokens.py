"""Tokens and the text they spell, with both libraries' tokenizers on micro's vocabulary."""

from __future__ import annotations

import pytest

from app.backends.tokens import encode_text, spell, text_of, token_bytes
from tests.backends.test_contract import EOT, MICRO


def of_faster_whisper(task: str = "transcribe"):
    tokenizers = pytest.importorskip("tokenizers")
    module = pytest.importorskip("faster_whisper.tokenizer")
    return module.Tokenizer(tokenizers.Tokenizer.from_file(str(MICRO / "tokenizer.json")), True, task, "de")


def of_mlx(task: str = "transcribe"):
    module = pytest.importorskip("mlx_whisper.tokenizer")
    return module.get_tokenizer(True, language="de", task=task)


def of_openai(task: str = "transcribe"):
    module = pytest.importorskip("whisper.tokenizer")
    return module.get_tokenizer(True, language="de", task=task)


TOKENIZERS = [
    of_faster_whisper,
    pytest.param(of_mlx, marks=pytest.mark.mlx),
    pytest.param(of_openai, marks=pytest.mark.torch),
]


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("text", [" Straße", " 日本語 \u0e17\u0e33", " 😀🏴\u200d☠️", " a\u00a0b\t\n\x00"])
def test_the_bytes_of_all_tokens_are_the_text(tokenizer, text):
    tokens = encode_text(tokenizer(), text)
    spelled = spell(tokenizer(), tokens, [-0.5] * len(tokens))
    assert b"".join(bytes(token.bytes) for token in spelled).decode() == text_of(tokenizer(), tokens) == text


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_a_part_of_a_character_is_a_replacement_character(tokenizer):
    tokens = encode_text(tokenizer(), "☠")
    spelled = spell(tokenizer(), tokens, [-1.0] * len(tokens))
    assert len(spelled) > 1
    assert {token.token for token in spelled} <= {"\ufffd", "\ufffd\ufffd"}


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_timestamps_and_special_tokens_are_left_out(tokenizer):
    (word,) = encode_text(tokenizer(), " the")
    tokens = [tokenizer().timestamp_begin, word, tokenizer().timestamp_begin + 50, tokenizer().sot]
    spelled = spell(tokenizer(), tokens, [-0.1, -0.2, -0.3, -0.4])
    assert [(token.token, token.logprob) for token in spelled] == [(" the", -0.2)]


def test_a_rounding_error_above_0_is_cut_off():
    tokenizer = of_faster_whisper()
    assert [token.logprob for token in spell(tokenizer, [1], [1e-8])] == [0.0]


@pytest.mark.mlx
def test_both_vocabularies_spell_every_token_alike():
    ours, theirs = of_faster_whisper(), of_mlx()
    assert all(token_bytes(ours, token) == token_bytes(theirs, token) for token in range(EOT))


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_a_translation_is_a_token_of_the_prompt(tokenizer):
    assert tokenizer("translate").translate in tokenizer("translate").sot_sequence
    assert tokenizer("translate").translate not in tokenizer("transcribe").sot_sequence
