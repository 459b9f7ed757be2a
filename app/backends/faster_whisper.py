"""faster-whisper: Whisper on CTranslate2, on any CPU and on Nvidia's GPUs.

Its own ``transcribe`` seeks through a whole file and its batched pipeline ignores the temperature, so whisperd calls
the model underneath (``WhisperModel.model``, a ``ctranslate2.models.Whisper``) and takes the log-mel spectrogram, the
tokenizer and the words' alignment from the library. CTranslate2 has no Metal: on a Mac it runs on the CPU.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.backends import not_importable, rules
from app.backends.base import MAX_THREADS, LoadOptions, ModelInfo
from app.backends.rules import Attempt
from app.backends.tokens import APPENDED, PREPENDED, Decoded, suppressed_tokens
from app.backends.whisper import Pass, WhisperBackend
from app.errors import BackendUnavailable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: On a CPU so many replicas of the model, which have one set of weights, share the threads and a step's windows:
#: threads that work on one window mostly wait for one another.
REPLICAS = 2


class FasterWhisper(WhisperBackend):
    library = "faster-whisper"

    def load(self, model_path: str, options: LoadOptions) -> ModelInfo:
        """Load the CTranslate2 folder ``model_path``, never the network.

        ``device`` may be ``auto``, ``cpu`` or ``cuda``. Precision ``default`` is int8 on a CPU and float16 on CUDA
        where the machine can do it; else CTranslate2's own choice.
        """
        try:
            import ctranslate2
            import faster_whisper
            from faster_whisper.feature_extractor import FeatureExtractor
        except ImportError as error:
            raise not_importable("faster-whisper", error) from None

        device = _device(options.device, ctranslate2)
        threads = options.threads or min(os.cpu_count() or 1, REPLICAS * MAX_THREADS)
        self._at_once = min(threads, REPLICAS) if device == "cpu" else 1
        _check_folder(model_path)
        try:
            self._model = faster_whisper.WhisperModel(
                model_path,
                device=device,
                compute_type=_precision(options.precision, device, ctranslate2),
                cpu_threads=threads // self._at_once,
                num_workers=self._at_once,
                local_files_only=True,
            )
        except Exception as error:  # noqa: BLE001 - whatever the library raises over a broken folder
            raise BackendUnavailable(
                f"faster-whisper cannot load the model in {model_path} ({type(error).__name__})."
            ) from None
        ctranslate2.set_random_seed(0)
        self._pool = ThreadPoolExecutor(self._at_once)
        self._ctranslate2 = ctranslate2
        self._whisper = self._model.model
        self._multilingual = bool(self._whisper.is_multilingual)
        # The model knows its number of mels; a folder may lack preprocessor_config.json.
        self._log_mel = FeatureExtractor(feature_size=self._whisper.n_mels)
        device, precision = str(self._whisper.device), str(self._whisper.compute_type)
        return ModelInfo(device, precision, self._multilingual, self._at_once)

    def _encode(self, audio: Sequence[NDArray[np.float32]], frames: int) -> Any:
        """A list of rows, each encoded alone: a batch of them would outgrow a processor's cache and take longer."""
        import numpy as np

        length = frames * rules.SAMPLES_PER_FRAME

        def encode(part: NDArray[np.float32]) -> Any:
            mel = self._log_mel(np.pad(part[:length], (0, max(0, length - len(part)))), padding=0)
            features = np.ascontiguousarray(mel[None], dtype=np.float32)
            return self._whisper.encode(self._ctranslate2.StorageView.from_array(features))

        return self._shared(encode, audio)

    def _shared(self, function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        """``function`` of each of ``items``, by all replicas."""
        return [function(items[0])] if len(items) == 1 else list(self._pool.map(function, items))

    def _detect(self, features: Any) -> Mapping[str, float]:
        return {str(token[2:-2]): float(p) for token, p in self._whisper.detect_language(features[0])[0]}

    def _make_tokenizer(self, language: str, task: str) -> Any:
        from faster_whisper.tokenizer import Tokenizer

        tokenizer = Tokenizer(self._model.hf_tokenizer, self._multilingual, task=task, language=language)
        if self._multilingual and tokenizer.language is None:
            raise KeyError(language)
        return tokenizer

    def _greedy(self, work: Pass) -> list[Attempt]:
        def decode(rows: list[Any]) -> list[Any]:
            return self._generate(work, rows, beam_size=1 if work.logprobs else max(1, work.beam_size))

        results = [result for part in self._shared(decode, _parts(work.features, self._at_once)) for result in part]
        attempts = [_attempt(work.tokenizer, result, 0.0) for result in results]
        if not work.logprobs:
            return attempts
        return [
            replace(attempt, logprobs=self._raw_logprobs(work, row, attempt.tokens))
            for row, attempt in enumerate(attempts)
        ]

    def _sample(self, work: Pass, row: int, temperature: float) -> Attempt:
        # Without sampling_topk=0 CTranslate2 takes the likeliest token whatever the temperature.
        results = self._generate(
            work,
            [work.features[row]],
            beam_size=1,
            sampling_topk=0,
            sampling_temperature=temperature,
            num_hypotheses=rules.BEST_OF,
        )
        return _attempt(work.tokenizer, results[0], temperature)

    def _generate(self, work: Pass, rows: list[Any], **how: Any) -> list[Any]:
        results: list[Any] = self._whisper.generate(
            rows[0] if len(rows) == 1 else self._batch(rows),
            [list(work.prompt)] * len(rows),
            max_length=self._model.max_length,
            return_scores=True,
            return_no_speech_prob=True,
            suppress_blank=True,
            suppress_tokens=list(suppressed_tokens(work.tokenizer)),
            max_initial_timestamp_index=rules.MAX_INITIAL_TIMESTAMP,
            **how,
        )
        return results

    def _raw_logprobs(self, work: Pass, row: int, tokens: tuple[int, ...]) -> tuple[float, ...]:
        """The log-probabilities of one row's ``tokens`` before anything was suppressed.

        The logits that CTranslate2 (4.8.5) returns of a search are those that were left after suppression. So the
        tokens are given to it once more, as a prefix, with nothing to suppress: it then returns the logits of
        each step of the prefix, in which <|notimestamps|> alone is missing, since timestamps are on. One row at a time,
        because a window's logits take up to 46 MB.
        """
        import numpy as np

        if not tokens:
            return ()
        before, count = len(work.prompt) - 1, len(tokens)
        result = self._whisper.generate(
            work.features[row],
            [[*work.prompt, *tokens]],
            beam_size=1,
            # Half of this, and this less the prompt, must hold the prefix; what follows the prefix is not wanted.
            max_length=max(2 * count, before + count),
            return_logits_vocab=True,
            suppress_blank=False,
            suppress_tokens=[],
        )[0]
        figures = []
        for token, step in zip(tokens, result.logits[0][:count], strict=True):
            logits = np.asarray(self._on_cpu(step), np.float64)
            highest = logits.max()
            figures.append(float(logits[token] - highest - np.log(np.exp(logits - highest).sum())))
        return tuple(figures)

    def _seed(self, seed: int) -> None:
        """Nothing: CTranslate2 seeds its thread's generator at the first draw only (``set_random_seed`` later has no
        effect, measured with 4.8.5), so what is sampled depends on what was sampled before."""

    def _add_words(self, work: Pass, row: int, segments: list[dict[str, Any]], frames: int) -> None:
        self._model.add_word_timestamps(
            [segments], work.tokenizer, work.features[row], frames, PREPENDED, APPENDED, 0.0
        )

    def _batch(self, rows: list[Any]) -> Any:
        """Encoded rows as one batch; the decoder takes it from the CPU on any device."""
        import numpy as np

        return self._ctranslate2.StorageView.from_array(np.concatenate([np.array(self._on_cpu(row)) for row in rows]))

    def _on_cpu(self, values: Any) -> Any:
        """A StorageView of any device and type as float32 on the CPU, which numpy can read."""
        return values.to_device(self._ctranslate2.Device.cpu).to(self._ctranslate2.DataType.float32)


def _attempt(tokenizer: Any, result: Any, temperature: float) -> Attempt:
    """CTranslate2's score is a mean over the tokens."""
    tokens = tuple(int(token) for token in result.sequences_ids[0])
    decoded = Decoded(tokens, float(result.scores[0]) * len(tokens), float(result.no_speech_prob))
    return decoded.attempt(tokenizer, temperature)


def _parts(rows: list[Any], number: int) -> list[list[Any]]:
    """The rows in order, as at most ``number`` lists of about one length."""
    length = -(-len(rows) // number)
    return [rows[i : i + length] for i in range(0, len(rows), length)]


def _device(asked: str, ctranslate2: Any) -> str:
    has_cuda = ctranslate2.get_cuda_device_count() > 0
    if asked == "auto":
        return "cuda" if has_cuda else "cpu"
    if asked in {"mps", "metal", "gpu"}:
        raise BackendUnavailable(
            "faster-whisper cannot use the Mac's GPU: CTranslate2 has no Metal. "
            "Use the backend mlx-whisper, or device cpu."
        )
    if asked == "cuda" and not has_cuda:
        raise BackendUnavailable("CTranslate2 sees no CUDA device on this machine. Use device cpu.")
    if asked not in {"cpu", "cuda"}:
        raise BackendUnavailable(f"faster-whisper knows no device {asked!r}; it takes auto, cpu or cuda.")
    return asked


def _precision(asked: str, device: str, ctranslate2: Any) -> str:
    """``default``: int8 on a CPU (measured: no more word errors than float32, in half the time), float16 on CUDA."""
    if asked != "default":
        return asked
    wanted = "float16" if device == "cuda" else "int8"
    return wanted if wanted in ctranslate2.get_supported_compute_types(device) else "default"


def _check_folder(model_path: str) -> None:
    """faster-whisper fetches what it misses from the network: so nothing may be missing."""
    missing = [
        name for name in ("model.bin", "config.json", "tokenizer.json") if not (Path(model_path) / name).is_file()
    ]
    if missing:
        raise BackendUnavailable(
            f"{model_path} is no CTranslate2 model: {', '.join(missing)} missing. Convert or download it again."
        )
