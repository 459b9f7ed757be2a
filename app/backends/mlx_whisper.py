"""mlx-whisper: Whisper on MLX, for Apple Silicon's GPU; it also runs on Linux, on CUDA or slowly on the CPU.

Weights, log-mel spectrogram, tokenizer and the words' alignment are the library's; the network's calls are
``app.backends.mlx_network``, the decoding loop is ``app.backends.mlx_decoding``. MLX's streams belong to the thread
that made them: everything here must be called from one thread, the worker's main one. On Linux's CPU the wheel links
the reference BLAS: ``app.backends.base.openblas_preload`` names the library that makes it several times faster.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.backends import mlx_decoding, mlx_network, not_importable, rules
from app.backends.base import LoadOptions, Memory, ModelInfo
from app.backends.rules import Attempt
from app.backends.tokens import Decoded
from app.backends.whisper import Pass, WhisperBackend
from app.errors import BackendUnavailable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Bytes that MLX may keep of freed buffers. It keeps them by size, and each new length of input brings new sizes: with
#: MLX's own limit, on a GPU about the machine's memory, the cache outgrows the model several times over within days.
#: This much serves the steps of one job; ``rest`` gives it back between jobs.
CACHE_BYTES = 512 * 1024 * 1024
#: The precisions that MLX computes Whisper in; a quantised folder keeps its own weights whatever is asked.
PRECISIONS = ("float16", "bfloat16", "float32")


class MlxWhisper(WhisperBackend):
    library = "mlx-whisper"

    def load(self, model_path: str, options: LoadOptions) -> ModelInfo:
        """Load the MLX folder ``model_path`` (``config.json`` and ``weights.safetensors`` or ``weights.npz``).

        ``device`` may be ``auto``, ``cpu``, ``metal`` (or ``gpu``, ``mps``) or ``cuda``. Precision ``default`` is
        float16 on a GPU and float32 on the CPU, where MLX is slow at anything else. ``threads`` has no
        effect: MLX chooses.
        """
        try:
            import mlx.core as mx
            from mlx_whisper import audio, load_models, timing, tokenizer
        except ImportError as error:
            raise not_importable("mlx-whisper", error) from None

        device = _device(options.device, mx)
        precision = _precision(options.precision, device)
        _limit_cache(mx)
        _check_folder(model_path)
        try:
            self._dtype = getattr(mx, precision)
            self._model = load_models.load_model(model_path, self._dtype)
            # The library takes the weights in whatever type they were stored.
            self._model.set_dtype(self._dtype)
            self._model.decoder._mask = self._model.decoder._mask.astype(self._dtype)
            mx.eval(self._model.parameters())
            _set_alignment_heads(self._model, model_path)
        except Exception as error:  # noqa: BLE001 - whatever the library raises over a broken folder
            raise BackendUnavailable(
                f"mlx-whisper cannot load the model in {model_path} ({type(error).__name__})."
            ) from None
        self._mx, self._audio, self._timing, self._tokenizer_module = mx, audio, timing, tokenizer
        self._multilingual = bool(self._model.is_multilingual)
        self._decoder: mlx_decoding.Decoder | None = None
        return ModelInfo(device, precision, self._multilingual)

    def rest(self) -> Memory:
        """Empty MLX's cache; ``cached`` is what is left of it, and ``peak`` begins anew."""
        mx = self._mx
        # What is still under way puts its buffers into the cache when it ends.
        mx.synchronize()
        mx.clear_cache()
        active = mx.get_active_memory()
        # MLX counts a peak from 0, not from what is active: it is 0 where nothing was allocated since.
        memory = Memory(active, cached=mx.get_cache_memory(), peak=max(active, mx.get_peak_memory()))
        mx.reset_peak_memory()
        return memory

    def _encode(self, audio: Sequence[NDArray[np.float32]], frames: int) -> Any:
        """One array of all rows, each of which is encoded alone: encoding takes no less time together, and eight whole
        windows of large-v3-turbo would take 13 GB."""
        mx, length = self._mx, frames * rules.SAMPLES_PER_FRAME
        rows = []
        for part in audio:
            padding = max(0, length - len(part))
            mel = self._audio.log_mel_spectrogram(part[:length], self._model.dims.n_mels, padding=padding)
            rows.append(mlx_network.encode(self._model.encoder, mel[None].astype(self._dtype)))
            mx.eval(rows[-1])
        return mx.concatenate(rows)

    def _detect(self, features: Any) -> Mapping[str, float]:
        tokenizer = self._tokenizer("en", "transcribe")
        tokens = tokenizer.all_language_tokens
        found = mlx_decoding.probabilities(self._model.decoder, features, tokenizer.sot, tokens)
        return {str(tokenizer.decode([token])).strip("<|>"): p for token, p in zip(tokens, found, strict=True)}

    def _make_tokenizer(self, language: str, task: str) -> Any:
        return self._tokenizer_module.get_tokenizer(
            self._multilingual, num_languages=self._model.num_languages, language=language, task=task
        )

    def _greedy(self, work: Pass) -> list[Attempt]:
        rows = work.features.shape[0]
        return [decoded.attempt(work.tokenizer, 0.0) for decoded in self._decoded(work, work.features, 0.0, rows)]

    def _sample(self, work: Pass, row: int, temperature: float) -> Attempt:
        drawn = self._decoded(work, work.features[row : row + 1], temperature, rules.BEST_OF)
        return max(drawn, key=lambda one: one.likelihood).attempt(work.tokenizer, temperature)

    def _decoded(self, work: Pass, features: Any, temperature: float, rows: int) -> list[Decoded]:
        if self._decoder is None:  # one serves all languages: their tokenizers differ in the prompt only
            self._decoder = mlx_decoding.Decoder(self._model, work.tokenizer)
        return self._decoder.decode(features, work.prompt, temperature, rows, work.logprobs)

    def _seed(self, seed: int) -> None:
        self._mx.random.seed(seed)

    def _add_words(self, work: Pass, row: int, segments: list[dict[str, Any]], frames: int) -> None:
        self._timing.add_word_timestamps(
            segments=segments,
            model=_Encoded(self._model),
            tokenizer=work.tokenizer,
            mel=work.features[row],
            num_frames=frames,
            last_speech_timestamp=0.0,
        )


class _Encoded:
    """The model as mlx-whisper's alignment uses it, but for features that are already encoded."""

    def __init__(self, model: Any) -> None:
        self._decoder = model.decoder
        self.alignment_heads = model.alignment_heads

    def forward_with_cross_qk(self, features: Any, tokens: Any) -> tuple[Any, Any]:
        logits, _, cross_qk = self._decoder(tokens, features)
        return logits, cross_qk


def _device(asked: str, mx: Any) -> str:
    """The device that MLX will use, set as its default."""
    gpu = "metal" if mx.metal.is_available() else "cuda" if mx.cuda.is_available() else None
    device = {"auto": gpu or "cpu", "mps": "metal", "gpu": gpu or "metal"}.get(asked, asked)
    if device not in {"cpu", "metal", "cuda"}:
        raise BackendUnavailable(f"mlx-whisper knows no device {asked!r}; it takes auto, cpu, metal or cuda.")
    if device not in {"cpu", gpu}:
        raise BackendUnavailable(f"MLX finds no {device} device on this machine. Use device cpu.")
    mx.set_default_device(mx.cpu if device == "cpu" else mx.gpu)
    return device


def _limit_cache(mx: Any) -> None:
    """Set MLX's limit to ``CACHE_BYTES``, unless its own is lower, as it is where MLX was built without a GPU (32 MB).

    The allocator is the build's, not the device's: on a Mac the limit counts on the CPU too.
    """
    before = mx.set_cache_limit(CACHE_BYTES)
    if before < CACHE_BYTES:
        mx.set_cache_limit(before)


def _precision(asked: str, device: str) -> str:
    if asked == "default":
        return "float32" if device == "cpu" else "float16"
    if asked not in PRECISIONS:
        raise BackendUnavailable(
            f"mlx-whisper knows no precision {asked!r}; it takes default, {', '.join(PRECISIONS)}. "
            "For 4 or 8 bits load a quantised model."
        )
    return asked


def _check_folder(model_path: str) -> None:
    """mlx-whisper asks the network for a folder that is not there: so it must be."""
    folder = Path(model_path)
    weights = any((folder / name).is_file() for name in ("weights.safetensors", "weights.npz"))
    if not weights or not (folder / "config.json").is_file():
        raise BackendUnavailable(
            f"{model_path} is no MLX model: it needs config.json and weights.safetensors. Convert or download it again."
        )


def _set_alignment_heads(model: Any, model_path: str) -> None:
    """The heads that follow the words, where the checkpoint names them; else the library's guess stays."""
    import numpy as np

    config = Path(model_path) / "generation_config.json"
    heads = json.loads(config.read_text(encoding="utf-8")).get("alignment_heads") if config.is_file() else None
    if heads:
        model.set_alignment_heads(np.asarray(heads, dtype=np.int64))
