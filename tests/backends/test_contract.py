"""What every backend promises, on every backend that is installed, with the bundled micro."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from app import convert
from app.backends import BACKENDS, create, installed
from app.backends.base import Backend, LoadOptions, StepResult
from app.backends.whisper_cpp import WhisperCpp
from app.errors import BackendUnavailable, InferenceFailed, InvalidRequest
from app.transcript import MAX_WINDOW, SAMPLE_RATE, Options, Segment, Window, join_text
from tests.backends.remote import Remote
from tests.conftest import AUDIO, clips, word_error_rate

MICRO = Path(__file__).parents[2] / "app" / "data" / "micro"
ENGLISH = Options(language="en")
#: Silence behind a clip in the encoder: as good as 30 s for micro, and much faster.
PADDING = 3 * SAMPLE_RATE
#: The end of text in multilingual vocabularies: text tokens are below it.
EOT = 50257
MLX = pytest.param("mlx-whisper", marks=pytest.mark.mlx)
OPENAI = pytest.param("openai-whisper", marks=pytest.mark.torch)
REAL = ["faster-whisper", "whisper.cpp", MLX, OPENAI]


def pcm_of(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        resampler = av.AudioResampler("s16", "mono", SAMPLE_RATE)
        frames = [part for frame in container.decode(audio=0) for part in resampler.resample(frame)]
        return np.concatenate([part.to_ndarray()[0] for part in [*frames, *resampler.resample(None)]])


def text_of(name: str) -> str:
    return next(clip.text for clip in clips(name))


def joined(*parts: str | float) -> tuple[np.ndarray, tuple[tuple[int, int], ...]]:
    """Clips by name and pauses in seconds as one recording, and where its speech is (samples)."""
    sound: list[np.ndarray] = []
    speech: list[tuple[int, int]] = []
    for part in parts:
        begin = sum(map(len, sound))
        if isinstance(part, str):
            sound.append(pcm_of(AUDIO / f"{part}.flac"))
            speech.append((begin, begin + len(sound[-1])))
        else:
            sound.append(np.zeros(int(part * SAMPLE_RATE), np.int16))
    return np.concatenate(sound), tuple(speech)


def whole(pcm: np.ndarray, speech: tuple[tuple[int, int], ...] | None = None) -> Window:
    """The recording as one window."""
    return Window(0, len(pcm), speech or ((0, len(pcm)),), min(MAX_WINDOW, len(pcm) + PADDING))


def transcribe_all(backend: Backend, pcm: np.ndarray, window: Window, options: Options = ENGLISH) -> str:
    """The text of a window and of all that comes back from it."""
    todo, segments = [window], []
    while todo:
        result = backend.transcribe(pcm, [todo.pop()], options).windows[0]
        segments += result.segments
        todo += result.again
    return join_text(segment.text for segment in segments)


def load(name: str, cache: Path, precision: str = "default") -> Backend:
    if not installed(name):
        pytest.skip(f"{name} is not installed")
    backend = Remote(name) if name == "mlx-whisper" else create(name)
    options = LoadOptions(device="cpu", precision=precision)
    backend.load(str(convert.ensure(MICRO, BACKENDS[name].format, cache)), options)
    return backend


@pytest.fixture(scope="session")
def model_cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def loaded(model_cache) -> Iterator[dict[str, Backend]]:
    backends: dict[str, Backend] = {}
    yield backends
    for backend in backends.values():
        if isinstance(backend, Remote):
            backend.close()


@pytest.fixture(params=REAL)
def backend(request, loaded, model_cache) -> Backend:
    if request.param not in loaded:
        loaded[request.param] = load(request.param, model_cache)
    return loaded[request.param]


#: Three clips one after the other, each a window, none of them on a round sample.
THREE = ("en000", 0.4, "en003", 0.4, "en015", 0.4001)


@pytest.fixture(scope="session")
def three() -> tuple[np.ndarray, list[Window]]:
    pcm, speech = joined(0.1234, *THREE)
    encoded = max(end - start for start, end in speech) + PADDING
    return pcm, [Window(start - 1601, end + 1600, ((start, end),), encoded) for start, end in speech]


STEPS: dict[int, StepResult] = {}
#: The same with log-probabilities.
LOGGED: dict[int, StepResult] = {}


@pytest.fixture
def step(backend, three) -> StepResult:
    """The three windows in one step, with words; made once for each backend."""
    if id(backend) not in STEPS:
        STEPS[id(backend)] = backend.transcribe(*three, Options(words=True))
    return STEPS[id(backend)]


@pytest.fixture
def logged(backend, three) -> StepResult:
    if id(backend) not in LOGGED:
        LOGGED[id(backend)] = backend.transcribe(*three, Options(logprobs=True, beam_size=5))
    return LOGGED[id(backend)]


def segments_of(step: StepResult) -> list[Segment]:
    return [segment for result in step.windows for segment in result.segments]


def test_each_window_of_a_step_becomes_its_own_text(step):
    heard = [join_text(segment.text for segment in result.segments) for result in step.windows]
    assert word_error_rate([text_of(name) for name in THREE[::2]], heard) <= 0.1


def test_windows_in_one_step_give_the_text_that_they_give_one_at_a_time(backend, three, step):
    pcm, windows = three
    for window, together in zip(windows[:2], step.windows[:2], strict=True):
        alone = backend.transcribe(pcm, [window], ENGLISH).windows[0]
        assert [segment.text for segment in alone.segments] == [segment.text for segment in together.segments]


def test_results_come_in_the_order_of_their_windows(three, step):
    assert [result.window for result in step.windows] == three[1]


def test_times_are_the_recordings_and_stay_inside_the_window(step):
    for result in step.windows:
        for segment in result.segments:
            assert result.window.start / SAMPLE_RATE <= segment.start <= segment.end <= result.window.end / SAMPLE_RATE
            assert segment.seek == result.window.start // 160


def test_words_spell_the_segment_and_never_run_backwards(step):
    for segment in (segment for result in step.windows for segment in result.segments):
        assert "".join(word.word for word in segment.words) == segment.text.replace(" ", "")
        times = [time for word in segment.words for time in (word.start, word.end)]
        assert times == sorted(times)
        assert segment.start <= times[0]
        assert times[-1] <= segment.end
        assert all(0 <= word.probability <= 1 for word in segment.words)


def test_words_are_where_they_are_spoken(three, step):
    spoken = [window.speech[0] for window in three[1]]
    for (start, end), result in zip(spoken, step.windows, strict=True):
        words = [word for segment in result.segments for word in segment.words]
        assert abs(words[0].start - start / SAMPLE_RATE) < 0.4
        # The clips end in up to 0.4 s of silence.
        assert -0.7 < words[-1].end - end / SAMPLE_RATE < 0.2


def test_only_plain_types_leave(step):
    def check(value: object) -> None:
        if dataclasses.is_dataclass(value):
            for field in dataclasses.fields(value):
                check(getattr(value, field.name))
        elif type(value) is tuple:
            for item in value:
                check(item)
        else:
            assert type(value) in {str, int, float, bool}

    check(step)


def test_tokens_are_counted(step):
    assert step.prompt_tokens == 3 * 3
    assert step.decoded_tokens == sum(len(s.tokens) for result in step.windows for s in result.segments)


def test_the_bytes_of_a_segments_tokens_are_its_text(logged):
    for segment in segments_of(logged):
        assert b"".join(bytes(token.bytes) for token in segment.logprobs).decode() == segment.text
        assert "".join(token.token for token in segment.logprobs) == segment.text
        assert len(segment.logprobs) == sum(token < EOT for token in segment.tokens)


def test_log_probabilities_are_finite_and_not_above_0(logged):
    figures = [token.logprob for segment in segments_of(logged) for token in segment.logprobs]
    assert all(math.isfinite(figure) and figure <= 0 for figure in figures)
    # Micro is sure of most words, and not of all.
    assert -0.2 < sum(figures) / len(figures) < -1e-4


def test_asking_for_log_probabilities_changes_nothing_else(step, logged):
    assert [s.logprobs for s in segments_of(step)] == [()] * len(segments_of(step))
    assert [(s.text, s.tokens, s.seek) for s in segments_of(step)] == [
        (s.text, s.tokens, s.seek) for s in segments_of(logged)
    ]
    assert (step.prompt_tokens, step.decoded_tokens) == (logged.prompt_tokens, logged.decoded_tokens)


@pytest.mark.parametrize(
    ("backend", "tolerance"),
    # In float32 the libraries agree to 2e-4 though one is asked again what it decoded; int8 costs up to 0.1.
    [
        ("faster-whisper", 0.1),
        pytest.param("mlx-whisper", 1e-3, marks=pytest.mark.mlx),
        pytest.param("openai-whisper", 1e-3, marks=pytest.mark.torch),
    ],
    indirect=["backend"],
)
def test_the_libraries_agree_on_log_probabilities(logged, tolerance, three, model_cache):
    reference = load("faster-whisper", model_cache, "float32").transcribe(*three, Options(logprobs=True))
    for ours, theirs in zip(segments_of(logged), segments_of(reference), strict=True):
        assert [token.bytes for token in ours.logprobs] == [token.bytes for token in theirs.logprobs]
        differences = [abs(a.logprob - b.logprob) for a, b in zip(ours.logprobs, theirs.logprobs, strict=True)]
        assert max(differences) < tolerance


def test_the_language_is_detected_from_the_first_window(backend):
    pcm, speech = joined("de000", 0.3)
    assert backend.transcribe(pcm, [whole(pcm, speech)], Options()).language == "de"


def test_the_language_is_the_likeliest_of_the_candidates_that_the_model_knows(backend):
    pcm, speech = joined("de000", 0.3)
    assert backend.transcribe(pcm, [whole(pcm, speech)], Options(languages=("tlh", "en"))).language == "en"
    with pytest.raises(InvalidRequest) as caught:
        backend.transcribe(pcm, [whole(pcm, speech)], Options(languages=("tlh", "qya")))
    assert caught.value.param == "languages"


def test_the_language_asked_for_counts_more_than_candidates(backend):
    pcm = np.random.default_rng(0).normal(0, 30, 1600).astype(np.int16)
    window = Window(0, 1600, ((0, 1600),), SAMPLE_RATE)
    assert backend.transcribe(pcm, [window], Options(language="de", languages=("en",))).language == "de"


def test_no_tail_is_lost(backend):
    """Micro, like larger models at times, ends its text at a long pause: what is spoken behind it must come back."""
    pcm, (one, two, three) = joined("en010", 1.9, "en055", 5.8, "en010", 0.1)
    # Clicks that count as speech keep the pause in the window: its middle would not be heard.
    clicks = [(two[1] + n * 31_000, two[1] + n * 31_000 + 100) for n in (1, 2)]
    window = whole(pcm, (one, two, *clicks, three))
    first = backend.transcribe(pcm, [window], ENGLISH).windows[0]
    assert len(first.segments) == 2
    assert [rest.end for rest in first.again] == [window.end]
    text = transcribe_all(backend, pcm, window)
    assert word_error_rate([" ".join(map(text_of, ("en010", "en055", "en010")))], [text]) < 0.1


@pytest.mark.parametrize("words", [False, True])
@pytest.mark.parametrize("margin", [None, 3 * SAMPLE_RATE])
def test_the_middle_of_long_pauses_is_not_heard_and_times_are_the_recordings(backend, margin, words):
    clips = ("en000", "en003", "en010")
    pcm, speech = joined(*(part for clip in clips for part in (40.0, clip)), 2.0)
    pcm[: speech[0][0]] = 8000  # loud, and outside the window
    window = Window(speech[0][0] - 4000, speech[-1][1] + 4000, speech)
    if margin is not None:
        window = window.fitted(margin)
        assert window.encoded == 17 * SAMPLE_RATE
    result = backend.transcribe(pcm, [window], replace(ENGLISH, words=words)).windows[0]
    assert not result.again
    assert len(result.segments) == len(clips)
    assert word_error_rate([text_of(clip) for clip in clips], [segment.text for segment in result.segments]) < 0.1
    for segment, (start, end) in zip(result.segments, speech, strict=True):
        assert (segment.start, segment.end) == pytest.approx((start / SAMPLE_RATE, end / SAMPLE_RATE), abs=0.7)
        assert all(start / SAMPLE_RATE - 1 <= w.start <= w.end <= end / SAMPLE_RATE + 1 for w in segment.words)
        assert bool(segment.words) is words


def babble() -> np.ndarray:
    """A clip backwards, all samples equally loud, every other one upside down: no language, and yet not silence."""
    clip = pcm_of(AUDIO / "en041.flac")
    return (np.sign(clip[::-1]) * (1 - 2 * (np.arange(len(clip)) % 2)) * 8000).astype(np.int16)


def test_a_window_that_fails_the_guards_comes_back_alone(backend):
    if isinstance(backend, WhisperCpp):
        pytest.skip("whisper.cpp hears nothing at all in babble")
    clip = pcm_of(AUDIO / "en041.flac")
    pcm = np.concatenate([clip, babble()])
    windows = [Window(start, start + len(clip), ((start, start + len(clip)),)) for start in (0, len(clip))]
    step = backend.transcribe(pcm, windows, Options(language="ja"))
    good, bad = step.windows
    assert good.segments
    assert not good.again
    assert step.prompt_tokens == 3
    assert step.decoded_tokens == sum(len(segment.tokens) for segment in good.segments)
    assert bad.segments == ()
    assert bad.again == (dataclasses.replace(windows[1], retry=True),)
    assert not bad.rerun
    last = backend.transcribe(pcm, bad.again, Options(language="ja", temperature=1.0)).windows[0]
    assert not any(rest.retry for rest in last.again)
    assert all(segment.temperature == 1.0 for segment in last.segments)


def test_a_fitted_window_that_fails_the_guards_comes_back_whole_though_it_was_alone(backend):
    pcm = babble()
    fitted = Window(0, len(pcm), ((0, len(pcm)),)).fitted(3 * SAMPLE_RATE)
    result = backend.transcribe(pcm, [fitted], Options(language="ja")).windows[0]
    assert not result.segments
    assert result.again == (dataclasses.replace(fitted, retry=True, encoded=MAX_WINDOW),)
    assert result.rerun


def test_a_language_that_is_not_sure_is_heard_in_the_whole_window(backend):
    pcm = babble()
    fitted = Window(0, len(pcm), ((0, len(pcm)),)).fitted(3 * SAMPLE_RATE)
    assert backend.transcribe(pcm, [fitted], Options(temperature=1.0)).windows[0].window.encoded == MAX_WINDOW
    assert backend.transcribe(pcm, [fitted], Options(temperature=1.0, language="ja")).windows[0].window == fitted


# CTranslate2 cannot be seeded more than once.
@pytest.mark.parametrize("backend", [MLX, OPENAI], indirect=True)
def test_the_same_window_sampled_again_gives_the_same_text(backend):
    pcm = babble()
    warmest = Options(language="ja", temperature=1.0)
    one, other = (backend.transcribe(pcm, [whole(pcm)], warmest).windows[0] for _ in range(2))
    assert one == other


def test_a_prompt_may_spell_out_special_tokens(backend):
    pcm, speech = joined("en003")
    prompt = "<|endoftext|><|notimestamps|> A sister, " * 60
    window = Window(0, len(pcm), speech)
    result = backend.transcribe(pcm, [window], Options(language="en", prompt=prompt, temperature=1.0))
    assert result.prompt_tokens == 1 + 223 + 3
    assert len(result.windows) == 1


@pytest.mark.parametrize("length", [160, 1600])
def test_a_window_may_be_very_short(backend, length):
    pcm = np.random.default_rng(0).normal(0, 30, length).astype(np.int16)
    result = backend.transcribe(pcm, [Window(0, length, ((0, length),), SAMPLE_RATE)], Options(words=True)).windows[0]
    assert all(segment.end <= length / SAMPLE_RATE for segment in result.segments)


def test_a_window_past_the_recordings_end_is_refused(backend):
    with pytest.raises(InferenceFailed):
        backend.transcribe(np.zeros(1000, np.int16), [Window(0, 2000, ())], ENGLISH)


def test_a_language_that_the_model_does_not_know_is_the_requests_mistake(backend):
    with pytest.raises(InvalidRequest):
        backend.transcribe(np.zeros(16000, np.int16), [Window(0, 16000, (), 16000)], Options(language="tlh"))


@pytest.mark.parametrize("name", REAL)
def test_a_folder_that_is_no_model_is_named_in_the_error(name, tmp_path):
    pytest.importorskip(BACKENDS[name].library)
    with pytest.raises(BackendUnavailable, match=tmp_path.name):
        create(name).load(str(tmp_path), LoadOptions())


@pytest.mark.parametrize("name", ["faster-whisper", "whisper.cpp"])
def test_a_library_that_is_broken_is_not_called_missing(name, monkeypatch, tmp_path):
    library = BACKENDS[name].library
    (tmp_path / f"{library}.py").write_text("raise ImportError('libomp.so.5: cannot open shared object file')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, library, raising=False)
    with pytest.raises(BackendUnavailable, match=r"is installed, but cannot be imported \(libomp.*Reinstall"):
        create(name).load(str(tmp_path), LoadOptions())


@pytest.mark.parametrize("name", REAL)
def test_a_missing_library_is_named_with_the_command_that_brings_it(name, monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, BACKENDS[name].library, None)
    with pytest.raises(BackendUnavailable, match="pip install"):
        create(name).load(str(tmp_path), LoadOptions())
