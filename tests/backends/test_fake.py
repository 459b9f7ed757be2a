"""The double keeps the contract too, and its script does what it says."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from app.backends import create
from app.backends.base import LoadOptions, Memory
from app.errors import BackendUnavailable, InferenceFailed, InvalidRequest
from app.transcript import Options, Window, join_text


class Silence:
    """A recording of so many samples, as far as the double looks."""

    def __len__(self) -> int:
        return 480_000


def fake(**script):
    backend = create("fake")
    backend.load(json.dumps(script), LoadOptions())
    return backend


def window(start=0, end=160_000):
    return Window(start, end, ((start, end),))


def texts(result):
    return [join_text(segment.text for segment in part.segments) for part in result.windows]


def test_each_window_says_where_it_begins():
    result = fake().transcribe(Silence(), [window(), window(160_000, 320_000)], Options(words=True))
    assert texts(result) == ["w0", "w10000"]
    assert [word.word for part in result.windows for s in part.segments for word in s.words] == ["w0", "w10000"]


def test_a_script_may_be_a_file(tmp_path):
    path = tmp_path / "script.json"
    path.write_text('{"text": " hello", "language": "fr"}')
    backend = create("fake")
    backend.load(str(path), LoadOptions())
    result = backend.transcribe(Silence(), [window()], Options())
    assert (texts(result), result.language) == (["hello"], "fr")


def test_a_token_is_a_word_and_has_its_bytes():
    (part,) = fake(text=" Grüße, {start}").transcribe(Silence(), [window()], Options(logprobs=True)).windows
    (segment,) = part.segments
    assert [(t.token, t.logprob) for t in segment.logprobs] == [(" Grüße,", -0.5), (" 0", -0.5)]
    assert b"".join(bytes(t.bytes) for t in segment.logprobs).decode() == segment.text
    assert len(segment.tokens) == 2
    assert fake().transcribe(Silence(), [window()], Options()).windows[0].segments[0].logprobs == ()


def test_tokens_are_counted_for_windows_that_are_done():
    backend = fake(text=" two words", on_step={"2": "retry"})
    options = Options(prompt="a prompt")
    windows = [window(), window(160_000, 320_000)]
    result = backend.transcribe(Silence(), windows, options)
    assert (result.prompt_tokens, result.decoded_tokens) == (6, 4)
    result = backend.transcribe(Silence(), windows, options)
    assert (result.prompt_tokens, result.decoded_tokens) == (0, 0)


@pytest.mark.parametrize(
    ("language", "candidates", "found"),
    [(None, ("de", "fr"), "fr"), (None, ("tlh", "de", "en"), "de"), ("es", ("de",), "es"), (None, (), "fr")],
)
def test_the_language_is_the_scripts_or_the_first_candidate(language, candidates, found):
    options = Options(language=language, languages=candidates)
    assert fake(language="fr").transcribe(Silence(), [window()], options).language == found


def test_candidates_that_nobody_knows_are_refused():
    with pytest.raises(InvalidRequest) as caught:
        fake().transcribe(Silence(), [window()], Options(languages=("tlh",)))
    assert caught.value.param == "languages"


def test_a_model_may_know_english_only():
    backend = fake(multilingual=False, language="de")
    assert backend.transcribe(Silence(), [window()], Options(languages=("de",))).language == "en"
    with pytest.raises(InvalidRequest, match="cannot translate"):
        backend.transcribe(Silence(), [window()], Options(task="translate"))


@pytest.mark.parametrize("script", ["{", "{]"])
def test_a_broken_script_cannot_be_loaded(script):
    with pytest.raises(BackendUnavailable):
        create("fake").load(script, LoadOptions())


def test_a_load_may_fail():
    with pytest.raises(BackendUnavailable):
        fake(load="unavailable")


@pytest.mark.parametrize("fault", ["raise", "nan"])
def test_a_fault_comes_at_its_step_and_only_there(fault):
    backend = fake(on_step={"2": fault})
    backend.transcribe(Silence(), [window()], Options())
    with pytest.raises(InferenceFailed) as caught:
        backend.transcribe(Silence(), [window()], Options())
    assert "own words" not in caught.value.message
    backend.transcribe(Silence(), [window()], Options())


def test_a_fault_may_wait_for_its_window_and_happen_once(tmp_path):
    script = {"on_window": {"160000": "memory"}, "once": str(tmp_path / "happened")}
    for attempt in (1, 2):
        backend = fake(**script)
        backend.transcribe(Silence(), [window()], Options())
        if attempt == 1:
            with pytest.raises(MemoryError):
                backend.transcribe(Silence(), [window(160_000, 320_000)], Options())
        else:
            backend.transcribe(Silence(), [window(160_000, 320_000)], Options())


def test_windows_may_come_back_to_retry():
    backend = fake(on_step={"1": "retry"})
    first = backend.transcribe(Silence(), [window()], Options()).windows[0]
    assert not first.segments
    assert [again.retry for again in first.again] == [True]
    assert texts(backend.transcribe(Silence(), first.again, Options())) == ["w0"]


def test_a_long_window_may_leave_a_remainder():
    result = fake(max_audio=64_000).transcribe(Silence(), [window()], Options()).windows[0]
    assert result.segments[0].end == 4.0
    assert [(rest.start, rest.end) for rest in result.again] == [(64_000, 160_000)]


def test_steps_are_noted(tmp_path):
    log = tmp_path / "log"
    backend = fake(log=str(log))
    backend.transcribe(Silence(), [window()], Options())
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["event"] for line in lines] == ["begin", "end"]
    assert lines[0]["windows"] == [[0, 160_000]]


def test_a_rest_is_noted_and_reports_the_scripts_memory(tmp_path):
    log = tmp_path / "log"
    backend = fake(log=str(log), memory={"active": 3, "cached": 1, "peak": 4})
    backend.transcribe(Silence(), [window()], Options())
    assert backend.rest() == Memory(active=3, cached=1, peak=4)
    begin, *_, rest = [json.loads(line) for line in log.read_text().splitlines()]
    assert (rest["event"], rest["windows"], rest["step"]) == ("rest", [], 1)
    assert rest.keys() == begin.keys()


def test_a_script_without_memory_has_none_to_report():
    assert fake().rest() == Memory(0, 0, 0)


@pytest.mark.parametrize(("fault", "code"), [("exit", 3), ("kill", -9), ("abort", -6)])
def test_a_fault_may_end_the_process(fault, code):
    script = json.dumps({"load": fault})
    program = (
        "from app.backends import create; from app.backends.base import LoadOptions; import sys;"
        "create('fake').load(sys.argv[1], LoadOptions())"
    )
    assert subprocess.run([sys.executable, "-c", program, script], check=False).returncode == code


def test_the_double_needs_no_library():
    program = "import app.backends.fake, sys; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
