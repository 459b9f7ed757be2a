"""A checkpoint of openai-whisper: which file it is, what of it is loaded, and the encoder at any length."""

from __future__ import annotations

import json
import pickle
from dataclasses import asdict
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("whisper")

from whisper.model import ModelDimensions, Whisper  # noqa: E402

from app.backends import torch_network  # noqa: E402

pytestmark = pytest.mark.torch

DIMS = ModelDimensions(80, 1500, 16, 2, 2, 51865, 448, 16, 2, 2)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    made = Whisper(DIMS)
    torch.nn.init.normal_(made.decoder.positional_embedding)
    return made


@pytest.fixture
def checkpoint(model, tmp_path) -> Path:
    torch.save({"dims": asdict(DIMS), "model_state_dict": model.state_dict()}, tmp_path / "model.pt")
    return tmp_path / "model.pt"


@pytest.mark.parametrize(
    ("files", "found"),
    [([], None), (["base.pt"], "base.pt"), (["a.pt", "b.pt"], None), (["a.pt", "model.pt"], "model.pt")],
)
def test_the_checkpoint_in_a_folder(tmp_path, files, found):
    for name in files:
        (tmp_path / name).touch()
    assert torch_network.checkpoint_in(tmp_path) == (found and tmp_path / found)


def test_a_file_is_its_own_checkpoint(checkpoint):
    assert torch_network.checkpoint_in(checkpoint) == checkpoint


def test_weights_are_in_the_precision_asked_for_and_norms_in_float32(model, checkpoint):
    loaded, _ = torch_network.load(checkpoint, "cpu", torch.bfloat16)
    assert loaded.decoder.token_embedding.weight.dtype == loaded.encoder.conv1.weight.dtype == torch.bfloat16
    assert loaded.decoder.blocks[0].mlp[0].weight.dtype == torch.bfloat16
    assert loaded.decoder.ln.weight.dtype == loaded.encoder.blocks[0].attn_ln.weight.dtype == torch.float32


def test_alignment_heads_are_those_that_the_checkpoint_names(model, checkpoint):
    (checkpoint.parent / "generation_config.json").write_text(json.dumps({"alignment_heads": [[0, 1], [1, 0]]}))
    _, heads = torch_network.load(checkpoint, "cpu", torch.float32)
    assert heads.indices().T.tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize("config", [None, {}, {"alignment_heads": None}])
def test_where_none_are_named_the_librarys_guess_stays(model, checkpoint, config):
    if config is not None:
        (checkpoint.parent / "generation_config.json").write_text(json.dumps(config))
    loaded, heads = torch_network.load(checkpoint, "cpu", torch.float32)
    assert heads.indices().T.tolist() == [[1, 0], [1, 1]]
    assert not any(buffer.is_sparse for buffer in loaded.buffers())


class Trap:
    """Pickled, it makes a file when it is read."""

    def __init__(self, path):
        self._path = path

    def __reduce__(self):
        return Path.touch, (self._path,)


def test_no_object_is_brought_to_life(tmp_path):
    torch.save({"dims": asdict(DIMS), "model_state_dict": Trap(tmp_path / "sprung")}, tmp_path / "model.pt")
    with pytest.raises(pickle.UnpicklingError):
        torch_network.load(tmp_path / "model.pt", "cpu", torch.float32)
    assert not (tmp_path / "sprung").exists()


def test_a_whole_window_is_encoded_as_by_the_library(model):
    mel = torch.randn(2, 80, 3000)
    with torch.inference_mode():
        assert torch.allclose(torch_network.encode(model.encoder, mel), model.encoder(mel), atol=1e-5)


@pytest.mark.parametrize("frames", [2, 300])
def test_a_window_may_be_shorter(model, frames):
    assert torch_network.encode(model.encoder, torch.randn(1, 80, frames)).shape == (1, frames // 2, 16)
