"""Conversions of the bundled model, checked with the libraries themselves, and of tiny checkpoints of odd shapes."""

from __future__ import annotations

import errno
import importlib.util
import json
import multiprocessing
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from app import convert as converter
from app.convert import FORMATS, convert, detect, ensure
from app.convert.checkpoint import open_checkpoint
from app.convert.ggml import MAGIC, mel_filters
from app.convert.tensors import read_safetensors
from app.convert.tokens import token_bytes
from app.errors import BackendUnavailable, InvalidRequest, StorageFull

MICRO = Path(converter.__file__).parent.parent / "data" / "micro"
EN000 = Path(__file__).parent / "data" / "audio" / "en000.flac"
EN000_WORDS = "the old gentleman closed the book and looked at the fire"

WIDTH, MELS, CONTEXT = 16, 128, 100
MARKS = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|haw|>", "<|translate|>", "<|transcribe|>"]
MARKS += ["<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]
ALPHABET = [chr(c) for c in (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100), *range(0x100, 0x144))]
TEXT = [*ALPHABET, "Ġt", "he", ""]
VOCABULARY = len(TEXT) + len(MARKS) + 1501


def tokenizer() -> dict[str, object]:
    added = [{"id": len(TEXT) + i, "content": mark, "special": True} for i, mark in enumerate(MARKS)]
    vocabulary = {token: i for i, token in enumerate(TEXT)}
    return {"model": {"type": "BPE", "vocab": vocabulary, "merges": ["Ġ t", "h e"]}, "added_tokens": added}


def weights() -> dict[str, np.ndarray]:
    """Two encoder layers and one decoder layer of small whole numbers, which every number format holds exactly."""
    rng = np.random.default_rng(7)
    shapes: dict[str, tuple[int, ...]] = {
        "encoder.conv1.weight": (WIDTH, MELS, 3),
        "encoder.conv2.weight": (WIDTH, WIDTH, 3),
        "decoder.embed_positions.weight": (448, WIDTH),
        "decoder.embed_tokens.weight": (VOCABULARY, WIDTH),
    }
    vectors = ["encoder.conv1", "encoder.conv2"]
    for layer in ("encoder.layers.0", "encoder.layers.1", "decoder.layers.0"):
        for attention in ("self_attn", "encoder_attn")[: 1 + layer.startswith("decoder")]:
            shapes |= {f"{layer}.{attention}.{part}_proj.weight": (WIDTH, WIDTH) for part in ("q", "k", "v", "out")}
            vectors += [f"{layer}.{attention}.{part}_proj" for part in ("q", "v", "out")]
            shapes[f"{layer}.{attention}_layer_norm.weight"] = (WIDTH,)
            vectors.append(f"{layer}.{attention}_layer_norm")
        shapes |= {f"{layer}.fc1.weight": (4 * WIDTH, WIDTH), f"{layer}.fc2.weight": (WIDTH, 4 * WIDTH)}
        shapes |= {f"{layer}.fc1.bias": (4 * WIDTH,), f"{layer}.final_layer_norm.weight": (WIDTH,)}
        vectors += [f"{layer}.fc2", f"{layer}.final_layer_norm"]
    shapes |= {"encoder.layer_norm.weight": (WIDTH,), "decoder.layer_norm.weight": (WIDTH,)}
    shapes |= {f"{name}.bias": (WIDTH,) for name in [*vectors, "encoder.layer_norm", "decoder.layer_norm"]}
    waves = np.arange(CONTEXT)[:, None] * 10000.0 ** (-np.arange(WIDTH // 2) / (WIDTH // 2 - 1))
    made = {f"model.{name}": rng.integers(-8, 8, shape).astype(np.float32) for name, shape in shapes.items()}
    positions = np.concatenate([np.sin(waves), np.cos(waves)], axis=1)
    return made | {"model.encoder.embed_positions.weight": positions.astype(np.float16).astype(np.float32)}


CONFIG = {
    "model_type": "whisper",
    "d_model": WIDTH,
    "encoder_layers": 2,
    "decoder_layers": 1,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 4 * WIDTH,
    "decoder_ffn_dim": 4 * WIDTH,
    "num_mel_bins": MELS,
    "max_source_positions": CONTEXT,
    "max_target_positions": 448,
    "suppress_tokens": [1, 2],
}


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A whole checkpoint of 128 mels in float32, without generation_config.json and preprocessor_config.json."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer()))
    save_file(weights(), folder / "model.safetensors")
    return folder


def normal(text: str) -> str:
    return "".join(c for c in text.lower() if c.isalpha() or c == " ").strip()


def refusal(source: Path, format_: str = "mlx") -> str:
    dest = source.parent / "refused"
    with pytest.raises(InvalidRequest) as caught:
        convert(source, format_, dest)
    assert not list(source.parent.glob("*refused*")), "nothing half-made may stay"
    assert caught.value.message.endswith(".")
    return caught.value.message


def mlx_weights(source: Path, dest: Path) -> dict[str, np.ndarray]:
    return load_file(convert(source, "mlx", dest) / "weights.safetensors")


@pytest.fixture(scope="module")
def micro_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def test_micro_in_ctranslate2_transcribes(micro_cache: Path) -> None:
    faster_whisper = pytest.importorskip("faster_whisper")
    folder = ensure(MICRO, "ctranslate2", micro_cache)
    model = faster_whisper.WhisperModel(str(folder), device="cpu", compute_type="int8")
    assert model.model.is_multilingual
    segments, info = model.transcribe(str(EN000), beam_size=1, word_timestamps=True)
    found = list(segments)
    assert info.language == "en"
    assert normal("".join(segment.text for segment in found)) == EN000_WORDS
    assert len(found[0].words) == 11
    config = json.loads((folder / "config.json").read_text())
    generation = json.loads((MICRO / "generation_config.json").read_text())
    assert config["alignment_heads"] == generation["alignment_heads"]
    assert config["suppress_ids"] == generation["suppress_tokens"]
    assert config["suppress_ids_begin"] == [220, 50257]
    assert config["lang_ids"] == list(range(50259, 50358))


@pytest.mark.mlx
@pytest.mark.filterwarnings("default")
def test_micro_in_mlx_transcribes(micro_cache: Path) -> None:
    mlx_whisper = pytest.importorskip("mlx_whisper")
    from faster_whisper.audio import decode_audio

    folder = ensure(MICRO, "mlx", micro_cache)
    result = mlx_whisper.transcribe(
        decode_audio(str(EN000)), path_or_hf_repo=str(folder), fp16=False, temperature=0.0, language="en"
    )
    assert normal(result["text"]) == EN000_WORDS
    generation = json.loads((folder / "generation_config.json").read_text())
    assert generation["alignment_heads"] == [[layer, head] for layer in (2, 3) for head in range(4)]


def test_micro_in_openais_format_loads_in_torch(micro_cache: Path) -> None:
    torch = pytest.importorskip("torch")
    folder = ensure(MICRO, "openai", micro_cache)
    checkpoint = torch.load(folder / "model.pt", weights_only=True)
    assert checkpoint["dims"]["n_vocab"] == 51865
    assert checkpoint["model_state_dict"]["decoder.blocks.3.mlp.2.weight"].shape == (256, 1024)
    assert detect(folder) == detect(folder / "model.pt") == "openai"


def test_without_torch_openais_format_says_what_to_install(tiny: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec("torch"):
        pytest.skip("torch is installed")
    with pytest.raises(BackendUnavailable, match="pip install torch"):
        convert(tiny, "openai", tmp_path / "out")


def test_ggml_reads_back_as_whisper_cpp_reads_it(tiny: Path, tmp_path: Path) -> None:
    data = (convert(tiny, "ggml", tmp_path / "out") / "ggml-model.bin").read_bytes()
    at = 0

    def take(count: int) -> tuple[int, ...]:
        nonlocal at
        at += 4 * count
        return struct.unpack_from(f"<{count}i", data, at - 4 * count)

    def take_bytes(count: int) -> bytes:
        nonlocal at
        at += count
        return data[at - count : at]

    assert take(12) == (MAGIC, VOCABULARY, CONTEXT, WIDTH, 4, 2, 448, WIDTH, 2, 1, MELS, 1)
    assert take(2) == (MELS, 201)
    assert np.array_equal(np.frombuffer(take_bytes(4 * MELS * 201), "<f4").reshape(MELS, 201), mel_filters(MELS))
    tokens = [take_bytes(*take(1)) for _ in range(*take(1))]
    assert len(tokens) == len(TEXT)
    assert tokens[ALPHABET.index("A")] == b"A"
    assert tokens[TEXT.index("Ġt")] == b" t"
    tensors = {}
    while at < len(data):
        dims, length, half = take(3)
        shape = take(dims)[::-1]
        name = take_bytes(length).decode()
        raw = take_bytes(int(np.prod(shape)) * (2 if half else 4))
        tensors[name] = np.frombuffer(raw, "<f2" if half else "<f4").reshape(shape)
    source = weights()
    assert len(tensors) == len(source)
    assert tensors["encoder.conv1.bias"].shape == (WIDTH, 1)
    assert tensors["encoder.positional_embedding"].dtype == np.float32
    assert tensors["decoder.blocks.0.cross_attn_ln.bias"].dtype == np.float32
    key = tensors["decoder.blocks.0.cross_attn.key.weight"]
    assert key.dtype == np.float16
    assert np.array_equal(key, source["model.decoder.layers.0.encoder_attn.k_proj.weight"])


def test_mel_filters_are_whispers() -> None:
    features = pytest.importorskip("faster_whisper.feature_extractor").FeatureExtractor
    for count in (80, 128):
        assert np.allclose(mel_filters(count), features.get_mel_filters(16_000, 400, count), atol=1e-7)


def test_float16_and_bfloat16_checkpoints_give_the_weights_of_float32(tiny: Path, tmp_path: Path) -> None:
    expected = mlx_weights(tiny, tmp_path / "f32")
    numbers = weights()
    save_file({name: array.astype(np.float16) for name, array in numbers.items()}, tiny / "model.safetensors")
    half = mlx_weights(tiny, tmp_path / "f16")
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    body = b""
    for name, array in numbers.items():
        raw = (array.view(np.uint32) >> 16).astype("<u2").tobytes()
        header[name] = {"dtype": "BF16", "shape": array.shape, "data_offsets": [len(body), len(body) + len(raw)]}
        body += raw
    head = json.dumps(header).encode()
    (tiny / "model.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + body)
    brain = mlx_weights(tiny, tmp_path / "bf16")
    assert set(expected) == set(half) == set(brain)
    assert all(np.array_equal(expected[name], half[name]) for name in expected)
    assert all(np.array_equal(expected[name], brain[name]) for name in expected)
    assert all(array.dtype == np.float16 for array in brain.values())


def test_mlx_has_its_own_names_and_channels_last(tiny: Path, tmp_path: Path) -> None:
    found = mlx_weights(tiny, tmp_path / "out")
    assert found["encoder.conv1.weight"].shape == (WIDTH, 3, MELS)
    assert np.array_equal(
        found["encoder.conv1.weight"][:, 1, :], weights()["model.encoder.conv1.weight"][:, :, 1].astype(np.float16)
    )
    assert {"encoder.blocks.1.mlp1.weight", "decoder.blocks.0.mlp2.bias", "encoder.ln_post.weight"} <= set(found)
    assert not any("encoder" in name and "positional" in name for name in found)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config.pop("model_type") == "whisper"
    assert config["n_vocab"] == VOCABULARY
    assert len(config) == 10


@pytest.mark.mlx
@pytest.mark.filterwarnings("default")
def test_positions_that_training_moved_reach_mlx(tiny: Path, tmp_path: Path) -> None:
    load_models = pytest.importorskip("mlx_whisper.load_models")
    moved = weights()
    moved["model.encoder.embed_positions.weight"][5, 5] += 1
    save_file(moved, tiny / "model.safetensors")
    model = load_models.load_model(str(convert(tiny, "mlx", tmp_path / "out")))
    assert np.allclose(model.encoder._positional_embedding, moved["model.encoder.embed_positions.weight"], atol=1e-3)


def test_a_sharded_checkpoint_is_the_whole_one(tiny: Path, tmp_path: Path) -> None:
    expected = mlx_weights(tiny, tmp_path / "whole")
    numbers = weights()
    names = sorted(numbers)
    parts = {"model-00001-of-00002.safetensors": names[:20], "model-00002-of-00002.safetensors": names[20:]}
    for file, part in parts.items():
        save_file({name: numbers[name] for name in part}, tiny / file)
    index = {"weight_map": {name: file for file, part in parts.items() for name in part}}
    (tiny / "model.safetensors.index.json").write_text(json.dumps(index))
    (tiny / "model.safetensors").unlink()
    assert detect(tiny) == "huggingface"
    found = mlx_weights(tiny, tmp_path / "sharded")
    assert all(np.array_equal(expected[name], found[name]) for name in expected)
    (tiny / "model-00002-of-00002.safetensors").unlink()
    assert detect(tiny) is None
    assert "model-00002-of-00002.safetensors is missing" in refusal(tiny)


def test_a_projection_of_its_own_goes_to_ctranslate2_and_is_refused_elsewhere(tiny: Path, tmp_path: Path) -> None:
    pytest.importorskip("ctranslate2")
    tied = convert(tiny, "ctranslate2", tmp_path / "tied") / "model.bin"
    save_file(weights() | {"proj_out.weight": np.ones((VOCABULARY, WIDTH), np.float32)}, tiny / "model.safetensors")
    ignored = convert(tiny, "ctranslate2", tmp_path / "ignored") / "model.bin"
    assert ignored.read_bytes() == tied.read_bytes(), "config.json says that the two are one"
    (tiny / "config.json").write_text(json.dumps(CONFIG | {"tie_word_embeddings": False}))
    own = convert(tiny, "ctranslate2", tmp_path / "own") / "model.bin"
    assert own.stat().st_size - tied.stat().st_size > VOCABULARY * WIDTH
    for format_ in ("mlx", "ggml"):
        assert "output projection apart from its embedding" in refusal(tiny, format_)


def test_rows_that_pad_the_embedding_are_cut_off(tiny: Path, tmp_path: Path) -> None:
    padded = weights()
    embedding = padded["model.decoder.embed_tokens.weight"]
    padded["model.decoder.embed_tokens.weight"] = np.concatenate([embedding, np.zeros((7, WIDTH), np.float32)])
    save_file(padded, tiny / "model.safetensors")
    assert mlx_weights(tiny, tmp_path / "out")["decoder.token_embedding.weight"].shape == (VOCABULARY, WIDTH)


def test_the_older_tokenizer_files_become_a_tokenizer_json(tiny: Path, tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    (tiny / "tokenizer.json").unlink()
    (tiny / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(TEXT)} | {MARKS[0]: len(TEXT)}))
    (tiny / "added_tokens.json").write_text(json.dumps({m: len(TEXT) + i for i, m in enumerate(MARKS) if i}))
    (tiny / "merges.txt").write_text("#version: 0.2\nĠ t\nh e\n")
    made = tokenizers.Tokenizer.from_file(str(convert(tiny, "mlx", tmp_path / "out") / "tokenizer.json"))
    assert made.encode("the t<|en|>").tokens == ["t", "he", "Ġt", "<|en|>"]
    assert made.token_to_id("<|notimestamps|>") == len(TEXT) + len(MARKS) - 1
    assert made.decode([TEXT.index("Ġt"), TEXT.index("he")]) == " the"


def test_what_a_checkpoint_leaves_out_has_defaults(tiny: Path, tmp_path: Path) -> None:
    pytest.importorskip("ctranslate2")
    folder = convert(tiny, "ctranslate2", tmp_path / "out")
    config = json.loads((folder / "config.json").read_text())
    assert config["alignment_heads"] == [[0, 0], [0, 1]]
    assert config["suppress_ids"] == [1, 2]
    assert config["lang_ids"] == [len(TEXT) + 2, len(TEXT) + 3]
    preprocessor = json.loads((folder / "preprocessor_config.json").read_text())
    assert (preprocessor["feature_size"], preprocessor["n_fft"]) == (MELS, 400)
    vocabulary = json.loads((folder / "vocabulary.json").read_text())
    assert len(vocabulary) == VOCABULARY
    assert vocabulary[len(TEXT) - 1] == ""
    assert vocabulary[-1] == "<|30.00|>"


def test_a_truncated_checkpoint_is_refused_with_a_sentence(tiny: Path) -> None:
    whole = (tiny / "model.safetensors").read_bytes()
    (tiny / "model.safetensors").write_bytes(whole[:-1000])
    assert "model.safetensors is cut short" in refusal(tiny)
    (tiny / "model.safetensors").write_bytes(whole[:100])
    assert "cut short in its header" in refusal(tiny)
    (tiny / "model.safetensors").write_bytes(b"")
    assert "is no safetensors file" in refusal(tiny)


def test_a_header_that_lies_is_refused(tiny: Path) -> None:
    for header in ({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 8]}}, {"a": 1}, [1]):
        head = json.dumps(header).encode()
        (tiny / "model.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + bytes(8))
        with pytest.raises(InvalidRequest):
            read_safetensors(tiny / "model.safetensors")


def test_each_missing_part_is_named(tiny: Path) -> None:
    numbers = weights()
    del numbers["model.decoder.layers.0.fc2.bias"]
    save_file(numbers, tiny / "model.safetensors")
    assert refusal(tiny) == "tiny lacks the weight decoder.layers.0.fc2.bias."
    (tiny / "model.safetensors").rename(tiny / "pytorch_model.bin")
    assert "safe_serialization=True" in refusal(tiny)
    (tiny / "pytorch_model.bin").unlink()
    assert refusal(tiny) == "tiny holds no model.safetensors."
    assert "is no folder" in refusal(tiny.parent / "nowhere")


def test_what_is_not_whisper_is_refused(tiny: Path) -> None:
    (tiny / "config.json").write_text(json.dumps(CONFIG | {"model_type": "bert"}))
    assert detect(tiny) is None
    assert "is no Hugging Face Whisper checkpoint" in refusal(tiny)
    (tiny / "config.json").write_text("{")
    assert refusal(tiny) == "config.json in tiny is no JSON."
    (tiny / "config.json").write_text(json.dumps(CONFIG | {"d_model": "wide"}))
    assert "gives a size that is no number" in refusal(tiny)
    (tiny / "config.json").write_text(json.dumps({k: v for k, v in CONFIG.items() if k != "encoder_layers"}))
    assert "does not say encoder_layers" in refusal(tiny)
    (tiny / "config.json").write_text(json.dumps(CONFIG | {"activation_function": "relu"}))
    assert "'relu' where Whisper has gelu" in refusal(tiny)
    (tiny / "config.json").unlink()
    assert refusal(tiny) == "tiny holds no config.json."


def test_weights_of_another_shape_are_refused(tiny: Path) -> None:
    (tiny / "config.json").write_text(json.dumps(CONFIG | {"num_mel_bins": 80}))
    assert "encoder.conv1.weight in tiny is [16, 128, 3], but config.json makes it [16, 80, 3]" in refusal(tiny)


def test_a_foreign_or_missing_tokenizer_is_refused(tiny: Path) -> None:
    (tiny / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"a": 0}}, "added_tokens": []}))
    assert "is not Whisper's: it has no <|endoftext|>" in refusal(tiny)
    (tiny / "tokenizer.json").write_text("[]")
    assert "cannot be read" in refusal(tiny)
    (tiny / "tokenizer.json").unlink()
    assert "holds no tokenizer.json" in refusal(tiny)


def test_weights_that_are_not_finite_or_not_floats_are_refused(tiny: Path) -> None:
    broken = weights()
    broken["model.encoder.conv1.bias"][3] = np.nan
    save_file(broken, tiny / "model.safetensors")
    assert "encoder.conv1.bias holds numbers that are not finite" in refusal(tiny)
    whole = weights()
    whole["model.encoder.conv1.bias"] = np.ones(WIDTH, np.int8)
    save_file(whole, tiny / "model.safetensors")
    assert "stores its weights as I8" in refusal(tiny)


def test_alignment_heads_outside_the_model_are_refused(tiny: Path) -> None:
    (tiny / "generation_config.json").write_text(json.dumps({"alignment_heads": [[9, 0]]}))
    assert "alignment heads that do not exist" in refusal(tiny)


def test_an_unknown_format_and_an_existing_folder_are_refused(tiny: Path, tmp_path: Path) -> None:
    assert "There is no conversion to 'onnx'; choose one of ctranslate2, mlx, ggml, openai" in refusal(tiny, "onnx")
    with pytest.raises(InvalidRequest, match="exists already"):
        convert(tiny, "mlx", tmp_path)


def test_a_full_disk_is_a_sentence_and_leaves_nothing(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("app.convert._to_disk", full)
    with pytest.raises(StorageFull, match="disk is full"):
        convert(tiny, "mlx", tiny.parent / "out")
    assert [path.name for path in tiny.parent.iterdir()] == ["tiny"]


def test_a_conversion_that_is_interrupted_leaves_nothing(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("app.convert._to_disk", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert(tiny, "mlx", tiny.parent / "out")
    assert [path.name for path in tiny.parent.iterdir()] == ["tiny"]


def test_a_model_already_in_the_format_is_used_where_it_lies(tiny: Path, tmp_path: Path) -> None:
    made = convert(tiny, "mlx", tmp_path / "made")
    assert ensure(made, "mlx", tmp_path / "cache") == made
    assert ensure(tiny, "huggingface", tmp_path / "cache") == tiny
    assert not (tmp_path / "cache").exists()
    with pytest.raises(InvalidRequest, match="made is in the mlx format"):
        ensure(made, "ctranslate2", tmp_path / "cache")


def test_the_cache_is_used_until_the_checkpoint_changes(tiny: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = ensure(tiny, "mlx", cache)
    assert first.parent == cache / "mlx"
    assert first.name.startswith("tiny-")
    made = (first / "config.json").stat().st_mtime_ns
    assert ensure(tiny, "mlx", cache) == first
    assert (first / "config.json").stat().st_mtime_ns == made
    (tiny / "generation_config.json").write_text('{"alignment_heads": [[0, 1]]}')
    assert ensure(tiny, "mlx", cache) != first


def test_another_version_of_library_or_converter_converts_again(tiny: Path, tmp_path: Path) -> None:
    made = {ensure(tiny, "ctranslate2", tmp_path)}
    for changed in ("importlib.metadata.version", "app.convert.CONVERTER_VERSION"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(changed, (lambda _: "99.0") if changed.endswith("metadata.version") else 99)
            made.add(ensure(tiny, "ctranslate2", tmp_path))
    assert len(made) == 3
    assert ensure(tiny, "ctranslate2", tmp_path) in made
    assert len(list((tmp_path / "ctranslate2").glob("tiny-*"))) == 3


def test_the_same_bytes_elsewhere_share_a_key(tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny, tmp_path / "other" / "tiny")
    assert ensure(tiny, "mlx", tmp_path / "cache") == ensure(tmp_path / "other" / "tiny", "mlx", tmp_path / "cache")


def _ensure(source: Path, cache: Path) -> str:
    return str(ensure(source, "mlx", cache))


def test_processes_that_convert_at_once_end_with_one_model(tiny: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        results = set(pool.starmap(_ensure, [(tiny, cache)] * 3))
    assert len(results) == 1
    assert detect(Path(results.pop())) == "mlx"
    assert len([path for path in (cache / "mlx").iterdir() if path.is_dir()]) == 1


def test_what_a_killed_process_left_is_swept(tiny: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    made = ensure(tiny, "mlx", cache)
    shutil.rmtree(made)
    left = made.parent / f".{made.name}.work-abc"
    left.mkdir()
    assert ensure(tiny, "mlx", cache) == made
    assert not left.exists()


def test_every_format_is_told_from_the_others(tiny: Path, tmp_path: Path) -> None:
    found = {}
    for name, entry in FORMATS.items():
        module = {"ctranslate2": "ctranslate2", "openai": "torch"}.get(name)
        if entry.path and (module is None or importlib.util.find_spec(module)):
            found[name] = detect(convert(tiny, name, tmp_path / name))
    assert all(name == seen for name, seen in found.items())
    assert detect(tiny) == "huggingface"
    assert detect(tmp_path) is None
    assert detect(tmp_path / "nowhere") is None
    assert detect(tmp_path / "ggml" / "ggml-model.bin") == "ggml"


def test_a_folder_without_its_weights_is_no_model(tiny: Path, tmp_path: Path) -> None:
    made = convert(tiny, "mlx", tmp_path / "made")
    (made / "weights.safetensors").unlink()
    assert detect(made) is None
    (tiny / "model.safetensors").unlink()
    assert detect(tiny) is None


def test_tokens_stand_for_bytes_of_text() -> None:
    assert token_bytes("Ġhello") == b" hello"
    assert token_bytes("Ã¤") == "ä".encode()
    assert token_bytes("日") == "日".encode()


def test_every_weight_of_micro_is_accounted_for() -> None:
    checkpoint = open_checkpoint(MICRO)
    assert {weight.source for weight in checkpoint.weights()} == set(checkpoint.tensors)
