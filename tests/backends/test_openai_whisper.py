"""What only openai-whisper does."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

pytest.importorskip("whisper")

from app import convert
from app.backends import openai_whisper, torch_decoding
from app.backends.base import LoadOptions, Memory
from app.backends.openai_whisper import OpenAIWhisper
from app.errors import BackendUnavailable
from app.transcript import Options
from tests.backends.test_contract import MICRO, load, model_cache, pcm_of, transcribe_all, whole
from tests.conftest import clips, word_error_rate

__all__ = ["model_cache"]

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def backend(model_cache):
    return load("openai-whisper", model_cache)


def torch_with(*, mps: bool = False, cuda: bool = False):
    return SimpleNamespace(
        backends=SimpleNamespace(mps=SimpleNamespace(is_available=lambda: mps)),
        cuda=SimpleNamespace(is_available=lambda: cuda),
    )


@pytest.mark.parametrize(
    ("asked", "mps", "cuda", "device"),
    [
        ("auto", False, False, "cpu"),
        ("auto", False, True, "cuda"),
        ("auto", True, False, "mps"),
        ("metal", True, False, "mps"),
        ("gpu", True, False, "mps"),
        ("gpu", False, True, "cuda"),
        ("cpu", True, True, "cpu"),
    ],
)
def test_devices(asked, mps, cuda, device):
    assert openai_whisper._device(asked, torch_with(mps=mps, cuda=cuda)) == device


@pytest.mark.parametrize("asked", ["mps", "metal", "cuda", "gpu"])
def test_a_device_that_is_not_there_is_refused_with_what_to_use_instead(asked):
    with pytest.raises(BackendUnavailable, match="Use device cpu"):
        openai_whisper._device(asked, torch_with())


def test_an_unknown_device_is_refused(tmp_path):
    with pytest.raises(BackendUnavailable, match="auto, cpu, cuda or mps"):
        OpenAIWhisper().load(str(tmp_path), LoadOptions(device="tpu"))


@pytest.mark.parametrize(("device", "precision"), [("cuda", "float16"), ("mps", "float32"), ("cpu", "float32")])
def test_half_precision_is_for_cuda(device, precision):
    assert openai_whisper._precision("default", device) == precision


def test_an_unknown_precision_is_refused(tmp_path):
    with pytest.raises(BackendUnavailable, match="float16, bfloat16, float32"):
        OpenAIWhisper().load(str(tmp_path), LoadOptions(device="cpu", precision="int8"))


def test_a_broken_checkpoint_is_named_without_the_librarys_words(tmp_path):
    (tmp_path / "model.pt").write_bytes(b"PK, and no more")
    with pytest.raises(BackendUnavailable, match=tmp_path.name) as caught:
        OpenAIWhisper().load(str(tmp_path), LoadOptions(device="cpu"))
    assert caught.value.__cause__ is None


def test_a_checkpoint_may_be_a_file(model_cache):
    path = convert.ensure(MICRO, "openai", model_cache) / "model.pt"
    assert OpenAIWhisper().load(str(path), LoadOptions(device="cpu")).multilingual


def test_beam_search_is_honoured(backend, monkeypatch):
    clip = clips("en003")[0]
    seen = []
    searched = torch_decoding.searched
    monkeypatch.setattr(torch_decoding, "searched", lambda *args: seen.append(args[-1]) or searched(*args))
    pcm = pcm_of(clip.path)
    text = transcribe_all(backend, pcm, whole(pcm), Options(language="en", beam_size=3))
    assert word_error_rate([clip.text], [text]) == 0
    assert seen == [3]


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precisions_understand_too(model_cache, precision):
    backend = load("openai-whisper", model_cache, precision)
    clip = clips("en003")[0]
    pcm = pcm_of(clip.path)
    assert word_error_rate([clip.text], [transcribe_all(backend, pcm, whole(pcm))]) == 0
    segments = backend.transcribe(pcm, [whole(pcm)], Options(language="en", words=True)).windows[0].segments
    assert all(segment.words for segment in segments)


def test_on_a_cpu_there_is_nothing_to_give_back(backend):
    assert backend.rest() == Memory()


def test_warming_up_needs_nothing_but_a_loaded_model(backend):
    backend.warm_up()
