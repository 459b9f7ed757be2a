"""The loop on torch against the library's own, on micro and on a network of random weights."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
whisper = pytest.importorskip("whisper")

from app import convert  # noqa: E402
from app.backends import rules, torch_decoding, torch_network  # noqa: E402
from tests.backends.test_contract import MICRO, model_cache, pcm_of  # noqa: E402
from tests.conftest import clips  # noqa: E402

__all__ = ["model_cache"]

pytestmark = pytest.mark.torch

TOKENIZER = whisper.tokenizer.get_tokenizer(True, language="en", task="transcribe")
START = TOKENIZER.sot_sequence
PROMPT = tuple(TOKENIZER.encode(" A sister, a window."))


@pytest.fixture(scope="module")
def micro(model_cache):
    checkpoint = convert.ensure(MICRO, "openai", model_cache) / "model.pt"
    return whisper.load_model(str(checkpoint), "cpu")


@pytest.fixture(scope="module")
def mel():
    """Two clips, each in 30 s of silence: (2, 80, 3000)."""
    sound = [pcm_of(clips(name)[0].path).astype(np.float32) / 32768 for name in ("en000", "en003")]
    return torch.stack([whisper.log_mel_spectrogram(whisper.pad_or_trim(each)) for each in sound])


@pytest.fixture(scope="module")
def features(micro, mel):
    return torch_network.encode(micro.encoder, mel)


def library(micro, features, **options):
    """What the library decodes of features of 30 s."""
    return whisper.decode(micro, features, whisper.DecodingOptions(language="en", fp16=False, **options))


def check(ours, theirs):
    assert list(ours.tokens) == theirs.tokens
    assert ours.logprob / (len(ours.tokens) + 1) == pytest.approx(theirs.avg_logprob, abs=1e-4)
    assert ours.no_speech_prob == pytest.approx(theirs.no_speech_prob, abs=1e-5)


def test_greedy_rows_are_those_of_the_library(micro, features):
    found = torch_decoding.greedy(micro, TOKENIZER, features, START)
    for ours, theirs in zip(found, library(micro, features), strict=True):
        check(ours, theirs)


def test_behind_a_prompt_too(micro, features):
    prompt = (TOKENIZER.sot_prev, *PROMPT, *START)
    (ours,) = torch_decoding.greedy(micro, TOKENIZER, features[:1], prompt)
    check(ours, library(micro, features[0], prompt=list(PROMPT)))


def test_beams_are_those_of_the_library(micro, features):
    check(torch_decoding.searched(micro, TOKENIZER, features[:1], START, 3), library(micro, features[0], beam_size=3))


def test_what_is_sampled_is_the_librarys_by_its_seed(micro, features):
    torch.manual_seed(7)
    ours = torch_decoding.sampled(micro, TOKENIZER, features[:1], START, 0.8)
    torch.manual_seed(7)
    check(ours, library(micro, features[0], temperature=0.8, best_of=rules.BEST_OF))


def test_raw_log_probabilities_are_those_before_the_filter(micro, features):
    for ours in torch_decoding.greedy(micro, TOKENIZER, features, START, raw=True):
        assert len(ours.raw_logprobs) == len(ours.tokens)
    tokens = torch.tensor([[*START, *ours.tokens]])
    with torch.inference_mode():
        logits = micro.decoder(tokens[:, :-1], features[1:])[0, len(START) - 1 :].log_softmax(dim=-1)
    expected = logits[range(len(ours.tokens)), list(ours.tokens)].tolist()
    assert list(ours.raw_logprobs) == pytest.approx(expected, abs=1e-4)


def test_nothing_stays_hooked_to_the_network(micro, features):
    torch_decoding.greedy(micro, TOKENIZER, features[:1], START)
    with pytest.raises(RuntimeError):
        torch_decoding.greedy(micro, TOKENIZER, features[:1, :, :5], START)
    assert not any(module._forward_hooks for module in micro.modules())


class Chatty(torch.nn.Module):
    """A decoder that has one word for everything and comes to no end."""

    def __init__(self, decoder):
        super().__init__()
        self.ln, self.blocks = decoder.ln, decoder.blocks

    def forward(self, tokens, features, kv_cache=None):
        logits = torch.zeros(*tokens.shape, 51865)
        logits[..., 1000] = 50.0
        return logits if tokens.shape[1] == 1 else logits[:, -2:]


@pytest.mark.parametrize(("prompt", "most"), [(START, 224), ((TOKENIZER.sot_prev, *[1000] * 240, *START), 448 - 244)])
def test_decoding_ends_where_the_positions_do(micro, features, monkeypatch, prompt, most):
    monkeypatch.setitem(micro._modules, "decoder", Chatty(micro.decoder))
    (found,) = torch_decoding.greedy(micro, TOKENIZER, features[:1], prompt)
    assert len(found.tokens) == most


def test_languages_are_the_librarys(micro, features):
    _, theirs = micro.detect_language(features[:1])
    found = torch_decoding.probabilities(micro.decoder, features, TOKENIZER.sot, TOKENIZER.all_language_tokens)
    assert found == pytest.approx([theirs[0][code] for code in TOKENIZER.all_language_codes], abs=1e-6)
