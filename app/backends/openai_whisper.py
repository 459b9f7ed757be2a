"""openai-whisper: OpenAI's own code on torch, on CUDA, on a Mac's GPU by MPS, or on a CPU.

The slowest of the libraries, kept for those who want the reference. Log-mel spectrogram, tokenizer, network, search and
the words' alignment are the library's; what it would not do is in ``app.backends.torch_network`` (sound of any length)
and ``app.backends.torch_decoding`` (the loop).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.backends import not_importable, rules, torch_decoding, torch_network
from app.backends.base import LoadOptions, Memory, ModelInfo
from app.backends.rules import Attempt
from app.backends.whisper import Pass, WhisperBackend
from app.errors import BackendUnavailable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: The precisions that torch computes Whisper in.
PRECISIONS = ("float16", "bfloat16", "float32")


class OpenAIWhisper(WhisperBackend):
    library = "openai-whisper"

    def load(self, model_path: str, options: LoadOptions) -> ModelInfo:
        """Load the checkpoint ``model_path``: a ``.pt`` file, or a folder with ``model.pt``; never the network.

        ``device`` may be ``auto``, ``cpu``, ``cuda`` or ``mps`` (or ``metal``; ``gpu`` is either of the two). Precision
        ``default`` is float16 on CUDA and float32 elsewhere. ``threads`` counts torch's threads on the CPU.
        """
        try:
            import torch
            from whisper import audio, timing, tokenizer
        except ImportError as error:
            raise not_importable("openai-whisper", error) from None

        device = _device(options.device, torch)
        precision = _precision(options.precision, device)
        checkpoint = torch_network.checkpoint_in(Path(model_path))
        if checkpoint is None:
            raise BackendUnavailable(
                f"{model_path} is no model of openai-whisper: it needs model.pt. Convert or download it again."
            )
        if options.threads:
            torch.set_num_threads(options.threads)
        try:
            self._dtype = getattr(torch, precision)
            self._model, self._heads = torch_network.load(checkpoint, device, self._dtype)
        except Exception as error:  # noqa: BLE001 - whatever torch and the library raise over a broken file
            raise BackendUnavailable(
                f"openai-whisper cannot load the model in {model_path} ({type(error).__name__})."
            ) from None
        # The library's own asks MPS for float64, which it lacks, and CUDA for Triton, which wants a compiler.
        timing.dtw = lambda x: timing.dtw_cpu(x.cpu().double().numpy())
        self._torch, self._audio, self._timing, self._tokenizer_module = torch, audio, timing, tokenizer
        self._device = device
        self._multilingual = bool(self._model.is_multilingual)
        return ModelInfo(device, precision, self._multilingual)

    def rest(self) -> Memory:
        """Empty torch's cache of the GPU's memory; on a CPU it keeps none. MPS knows no peak."""
        torch = self._torch
        if self._device == "cuda":
            # What is still under way puts its memory into the cache when it ends.
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            active = torch.cuda.memory_allocated()
            memory = Memory(active, torch.cuda.memory_reserved() - active, torch.cuda.max_memory_allocated())
            torch.cuda.reset_peak_memory_stats()
            return memory
        if self._device == "mps":
            torch.mps.synchronize()
            torch.mps.empty_cache()
            active = torch.mps.current_allocated_memory()
            return Memory(active, max(0, torch.mps.driver_allocated_memory() - active))
        return Memory()

    def _encode(self, audio: Sequence[NDArray[np.float32]], frames: int) -> Any:
        """One tensor of all rows, each of which is encoded alone, like those of the other libraries."""
        length = frames * rules.SAMPLES_PER_FRAME
        rows = []
        for part in audio:
            # On the CPU, where it takes milliseconds: MPS is young at complex numbers.
            padding = max(0, length - len(part))
            mel = self._audio.log_mel_spectrogram(part[:length], self._model.dims.n_mels, padding=padding)
            rows.append(torch_network.encode(self._model.encoder, mel[None].to(self._device, self._dtype)))
        return self._torch.cat(rows)

    def _detect(self, features: Any) -> Mapping[str, float]:
        tokenizer = self._tokenizer("en", "transcribe")
        found = torch_decoding.probabilities(
            self._model.decoder, features, tokenizer.sot, tokenizer.all_language_tokens
        )
        return dict(zip(map(str, tokenizer.all_language_codes), found, strict=True))

    def _make_tokenizer(self, language: str, task: str) -> Any:
        return self._tokenizer_module.get_tokenizer(
            self._multilingual, num_languages=self._model.num_languages, language=language, task=task
        )

    def _greedy(self, work: Pass) -> list[Attempt]:
        model, tokenizer, features = self._model, work.tokenizer, work.features
        if work.beam_size > 1 and not work.logprobs:
            found = [
                torch_decoding.searched(model, tokenizer, features[row : row + 1], work.prompt, work.beam_size)
                for row in range(len(features))
            ]
        else:
            found = torch_decoding.greedy(model, tokenizer, features, work.prompt, raw=work.logprobs)
        return [decoded.attempt(work.tokenizer, 0.0) for decoded in found]

    def _sample(self, work: Pass, row: int, temperature: float) -> Attempt:
        features = work.features[row : row + 1]
        decoded = torch_decoding.sampled(
            self._model, work.tokenizer, features, work.prompt, temperature, raw=work.logprobs
        )
        return decoded.attempt(work.tokenizer, temperature)

    def _seed(self, seed: int) -> None:
        self._torch.manual_seed(seed)

    def _add_words(self, work: Pass, row: int, segments: list[dict[str, Any]], frames: int) -> None:
        with self._torch.inference_mode():
            self._timing.add_word_timestamps(
                segments=segments,
                model=_Encoded(self._model, self._heads),
                tokenizer=work.tokenizer,
                mel=work.features[row],
                num_frames=frames,
                last_speech_timestamp=0.0,
            )


class _Encoded:
    """The model as the library's alignment uses it, but for features that are already encoded."""

    def __init__(self, model: Any, heads: Any) -> None:
        self.decoder, self.dims, self.device = model.decoder, model.dims, model.device
        self.alignment_heads = heads

    def __call__(self, features: Any, tokens: Any) -> Any:
        return self.decoder(tokens, features)


def _device(asked: str, torch: Any) -> str:
    there = {"mps": torch.backends.mps.is_available(), "cuda": torch.cuda.is_available(), "cpu": True}
    gpu = "mps" if there["mps"] else "cuda" if there["cuda"] else None
    device = {"auto": gpu or "cpu", "metal": "mps", "gpu": gpu or "cuda"}.get(asked, asked)
    if device not in there:
        raise BackendUnavailable(f"openai-whisper knows no device {asked!r}; it takes auto, cpu, cuda or mps.")
    if not there[device]:
        raise BackendUnavailable(f"torch finds no {device} device on this machine. Use device cpu.")
    return device


def _precision(asked: str, device: str) -> str:
    """``default``: float16 on CUDA; float32 on a CPU, where half is slow, and on MPS, where Whisper's logits in half
    were reported to be no numbers (openai/whisper's issues)."""
    if asked == "default":
        return "float16" if device == "cuda" else "float32"
    if asked not in PRECISIONS:
        raise BackendUnavailable(
            f"openai-whisper knows no precision {asked!r}; it takes default, {', '.join(PRECISIONS)}."
        )
    return asked
