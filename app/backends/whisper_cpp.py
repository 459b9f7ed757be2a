"""whisper.cpp through pywhispercpp: ggml models, quantised ones too, on Metal on a Mac, else on the CPU.

``whisper_full`` takes a window from sound to tokens in one call, which cannot be divided: so ``_encode`` only pads, and
each attempt at a window encodes it again. A call is given one temperature and one segment, since guards, ladder and
remainders are whisperd's. The bindings show no probability of silence: windows that the library finds silent come back
empty, by the same rule as everywhere, and segments say 0. Log-probabilities are those after suppression.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.backends import not_importable, rules
from app.backends.base import MAX_THREADS, LoadOptions, ModelInfo
from app.backends.ggml_tokens import GgmlTokenizer, Vocabulary
from app.backends.rules import Attempt
from app.backends.tokens import Decoded
from app.backends.whisper import Pass, WhisperBackend
from app.convert.checkpoint import Dims
from app.convert.ggml import read_dims
from app.errors import BackendUnavailable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: ggml's level of an error in its log.
ERROR_LEVEL = 4
#: Vocabularies from this size on are multilingual.
MULTILINGUAL = 51865
#: The heads that follow the words, in OpenAI's models: by the decoder's layers and heads, and the mels.
ALIGNMENT = {
    (4, 6, 80): "TINY",
    (6, 8, 80): "BASE",
    (12, 12, 80): "SMALL",
    (24, 16, 80): "MEDIUM",
    (32, 20, 80): "LARGE_V2",
    (32, 20, 128): "LARGE_V3",
    (4, 20, 128): "LARGE_V3_TURBO",
}


@dataclass(slots=True)
class Sound:
    """A window's ``samples``, padded. Of the last attempt at it: its ``tokens``, how likely each was, and when the
    sound of each ends, in hundredths of a second, -1 where that is not known."""

    samples: NDArray[np.float32]
    tokens: tuple[int, ...] = ()
    likely: tuple[float, ...] = ()
    ends: tuple[int, ...] = ()


class WhisperCpp(WhisperBackend):
    library = "whisper.cpp"

    def load(self, model_path: str, options: LoadOptions) -> ModelInfo:
        """Load the ggml file ``model_path``, or the one in that folder.

        ``device`` may be ``auto``, ``cpu``, or ``metal`` (``mps``, ``gpu``) or ``cuda`` where the library was built for
        it. Precision is the file's.
        """
        try:
            import _pywhispercpp
        except ImportError as error:
            raise not_importable("whisper.cpp", error) from None
        if options.precision != "default":
            raise BackendUnavailable("whisper.cpp computes in its file's own precision; load another file for another.")
        file, dims = _find_model(model_path)
        self._cpp: Any = _pywhispercpp
        device = _device(options.device, str(_pywhispercpp.whisper_print_system_info()))
        self._threads = options.threads or min(os.cpu_count() or 1, MAX_THREADS)
        self._multilingual = dims.n_vocab >= MULTILINGUAL
        self._context = self._open(file, dims, use_gpu=device != "cpu")
        self._languages = _languages(_pywhispercpp, dims.n_vocab) if self._multilingual else {}
        self._vocabulary = Vocabulary(_pywhispercpp, self._context)
        return ModelInfo(device, "ggml", self._multilingual)

    def _open(self, file: Path, dims: Dims, *, use_gpu: bool) -> Any:
        """The library's context; what it cannot load it only logs, and crashes later."""
        cpp, said = self._cpp, list[tuple[int, str]]()
        params = cpp.whisper_context_default_params()
        params.use_gpu = use_gpu
        # Flash attention keeps no weights that words could be aligned by.
        params.flash_attn, params.dtw_token_timestamps = False, True
        known = ALIGNMENT.get((dims.n_text_layer, dims.n_text_head, dims.n_mels))
        if known:
            name = f"WHISPER_AHEADS_{known}" + ("" if self._multilingual else "_EN")
            params.dtw_aheads_preset = getattr(cpp.whisper_alignment_heads_preset, name)
        else:
            params.dtw_aheads_preset = cpp.whisper_alignment_heads_preset.WHISPER_AHEADS_N_TOP_MOST
            params.dtw_n_top = dims.n_text_layer - dims.n_text_layer // 2
        cpp.whisper_log_set(lambda level, text, *_: said.append((int(level), str(text))))
        try:
            context = cpp.whisper_init_from_file_with_params(str(file), params)
        finally:
            cpp.whisper_log_set(None)  # a callback that is set when Python ends is a crash
        if any(level == ERROR_LEVEL or "no tensors" in text for level, text in said):
            raise BackendUnavailable(f"whisper.cpp cannot load the model in {file}: the file is damaged or cut short.")
        return context

    def _encode(self, audio: Sequence[NDArray[np.float32]], frames: int) -> Any:
        """A list of ``Sound``, a row each; nothing is encoded yet."""
        import numpy as np

        length = frames * rules.SAMPLES_PER_FRAME
        return [Sound(np.pad(part[:length], (0, max(0, length - len(part))))) for part in audio]

    def _detect(self, features: Any) -> Mapping[str, float]:
        import numpy as np

        cpp, samples = self._cpp, features[0].samples
        # The library detects at the length that its last call encoded. This one sets it, and finds a tenth of a second
        # too little to encode.
        params = self._params(cpp.whisper_sampling_strategy.WHISPER_SAMPLING_GREEDY, samples)
        params.duration_ms = 100
        cpp.whisper_full(self._context, params, samples, len(samples))
        found = np.zeros(cpp.whisper_lang_max_id() + 1, np.float32)
        cpp.whisper_lang_auto_detect(self._context, 0, self._threads, found)
        return {code: float(found[number]) for code, number in self._languages.items()}

    def _make_tokenizer(self, language: str, task: str) -> Any:
        number = self._languages[language] if self._multilingual else None
        return GgmlTokenizer(self._vocabulary, language, number, task)

    def _greedy(self, work: Pass) -> list[Attempt]:
        beams = 1 if work.logprobs else max(1, work.beam_size)
        return [self._attempt(work, sound, 0.0, beams) for sound in work.features]

    def _sample(self, work: Pass, row: int, temperature: float) -> Attempt:
        return self._attempt(work, work.features[row], temperature, 1)

    def _seed(self, seed: int) -> None:
        """Nothing: the library seeds its samplers itself, the same way each time."""

    def _attempt(self, work: Pass, sound: Sound, temperature: float, beams: int) -> Attempt:
        cpp, tokenizer = self._cpp, work.tokenizer
        strategies = cpp.whisper_sampling_strategy
        strategy = strategies.WHISPER_SAMPLING_BEAM_SEARCH if beams > 1 else strategies.WHISPER_SAMPLING_GREEDY
        params = self._params(strategy, sound.samples)
        params.language, params.translate = tokenizer.language, tokenizer.task == "translate"
        params.single_segment, params.no_context, params.suppress_nst = True, True, True
        params.temperature, params.temperature_inc = temperature, 0.0
        # Its guards are whisperd's, but for silence, which only it can tell.
        params.entropy_thold, params.logprob_thold = -1e9, rules.LOGPROB_LIMIT
        params.no_speech_thold = rules.NO_SPEECH_LIMIT
        params.greedy = {"best_of": rules.BEST_OF if temperature else 1}
        params.beam_search = {"beam_size": beams, "patience": -1.0}
        before = [token for token in work.prompt[: work.prompt.index(tokenizer.sot)] if token < tokenizer.eot]
        params.set_prompt_tokens(before)
        status = cpp.whisper_full(self._context, params, sound.samples, len(sound.samples))
        if status != 0:
            raise RuntimeError(f"whisper_full returned {status}")
        return self._read(tokenizer, sound, temperature)

    def _params(self, strategy: Any, samples: NDArray[np.float32]) -> Any:
        """The library's parameters for a call on ``samples``, which are encoded at their own length."""
        params = self._cpp.whisper_full_default_params(strategy)
        params.n_threads = self._threads
        params.print_progress = params.print_realtime = params.print_timestamps = False
        params.audio_ctx = len(samples) // rules.SAMPLES_PER_TIMESTAMP
        return params

    def _read(self, tokenizer: GgmlTokenizer, sound: Sound, temperature: float) -> Attempt:
        """The last call's result."""
        cpp, context = self._cpp, self._context
        data = [
            cpp.whisper_full_get_token_data(context, segment, number)
            for segment in range(cpp.whisper_full_n_segments(context))
            for number in range(cpp.whisper_full_n_tokens(context, segment))
        ]
        if not data:
            return Attempt((), "", 2 * rules.LOGPROB_LIMIT, no_speech_prob=1.0, temperature=temperature)
        spoken = [each for each in data if each.id != tokenizer.eot]
        tokens = tuple(int(each.id) for each in spoken)
        sound.tokens, sound.ends = tokens, tuple(int(each.t_dtw) for each in spoken)
        sound.likely = tuple(float(each.p) for each in spoken)
        figures = tuple(float(each.plog) for each in spoken)
        return Decoded(tokens, sum(float(each.plog) for each in data), 0.0, figures).attempt(tokenizer, temperature)

    def _add_words(self, work: Pass, row: int, segments: list[dict[str, Any]], frames: int) -> None:
        sound, place = work.features[row], 0
        for segment in segments:
            place = _find(sound.tokens, segment["tokens"], place)
            begin, words = segment["start"], list[dict[str, Any]]()
            for word, first, last in work.tokenizer.words(segment["tokens"]):
                span = slice(place + first, place + last)
                end = min(max(begin, max(sound.ends[span]) / 100), frames / 100)
                probability = sum(sound.likely[span]) / (last - first)
                words.append({"word": word, "start": begin, "end": end, "probability": probability})
                begin = end
            segment["words"] = words
            place += len(segment["tokens"])


def _find(tokens: tuple[int, ...], part: Sequence[int], start: int) -> int:
    """Where ``part`` stands in ``tokens`` from ``start`` on; ValueError where it does not."""
    for place in range(start, len(tokens) - len(part) + 1):
        if list(tokens[place : place + len(part)]) == list(part):
            return place
    raise ValueError("these are not the tokens that were aligned")


def _find_model(model_path: str) -> tuple[Path, Dims]:
    """The ggml file in ``model_path``, and the model's sizes."""
    path = Path(model_path)
    for file in [path] if path.is_file() else sorted(path.glob("*.bin")):
        dims = read_dims(file)
        if dims is not None:
            return file, dims
    raise BackendUnavailable(f"{model_path} is no ggml model for whisper.cpp. Convert or download it again.")


def _device(asked: str, built_for: str) -> str:
    """The device that whisper.cpp will use. Metal is in a Mac's build, without a word of it in older versions."""
    gpus = ["cuda"] if "CUDA" in built_for else ["metal"] if "METAL" in built_for or sys.platform == "darwin" else []
    device = {"auto": gpus[0] if gpus else "cpu", "mps": "metal", "gpu": gpus[0] if gpus else "metal"}.get(asked, asked)
    if device not in {"cpu", "metal", "cuda"}:
        raise BackendUnavailable(f"whisper.cpp knows no device {asked!r}; it takes auto, cpu, metal or cuda.")
    if device not in {"cpu", *gpus}:
        raise BackendUnavailable(f"This build of whisper.cpp has no {device}. Use device cpu.")
    return device


def _languages(cpp: Any, vocabulary: int) -> dict[str, int]:
    """The languages that a model of this vocabulary knows, by code: later models have one more."""
    count = vocabulary - MULTILINGUAL + 99
    return {str(cpp.whisper_lang_str(number)): number for number in range(min(count, cpp.whisper_lang_max_id() + 1))}
