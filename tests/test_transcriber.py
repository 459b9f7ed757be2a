from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.errors import InvalidRequest, UndecodableAudio, UnknownModel, UnsupportedAudio
from app.transcriber import Transcriber
from app.transcript import Segment
from tests.conftest import Recording, clips, word_error_rate


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("transcriber")


@pytest.fixture(scope="module")
def transcriber(folder: Path) -> Iterator[Transcriber]:
    with Transcriber(
        backend="faster-whisper", model="micro", cache_dir=folder / "cache", state_dir=folder / "state"
    ) as transcriber:
        yield transcriber
    assert list((folder / "state" / "spool").iterdir()) == []


def test_a_file_becomes_a_transcript_with_words_and_progress(
    transcriber: Transcriber, long_recording: Recording
) -> None:
    seen: list[tuple[float, float]] = []
    transcript = transcriber.transcribe(
        long_recording.path, words=True, on_progress=lambda done, whole: seen.append((done, whole))
    )
    assert word_error_rate([long_recording.text], [transcript.text]) <= 0.05
    assert transcript.language == "en"
    assert transcript.words
    assert tuple(transcript) == transcript.segments
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx((long_recording.duration, long_recording.duration), abs=0.1)
    assert any(0 < done < long_recording.duration for done, _ in seen), "progress is seen on the way"


def test_what_cannot_be_read_is_a_sentence_and_it_goes_on(transcriber: Transcriber, tmp_path: Path) -> None:
    with pytest.raises(UndecodableAudio, match="no file"):
        transcriber.transcribe(tmp_path / "missing.wav")
    (tmp_path / "letter.txt").write_text("Dear Sir")
    with pytest.raises(UnsupportedAudio):
        transcriber.transcribe(tmp_path / "letter.txt")
    with (tmp_path / "letter.txt").open() as text, pytest.raises(InvalidRequest, match="binary"):
        transcriber.transcribe(text)  # type: ignore[arg-type]
    assert transcriber.transcribe(clips("de000")[0].path).language == "de"


def test_bytes_and_open_files_are_as_good_as_paths(transcriber: Transcriber, folder: Path) -> None:
    path = clips("en000")[0].path
    texts = [transcriber.transcribe(source).text for source in (str(path), path, path.read_bytes())]
    with path.open("rb") as file:
        texts.append(transcriber.transcribe(file).text)
    assert texts[0]
    assert len(set(texts)) == 1
    assert not list((folder / "state" / "spool").rglob("upload")), "nothing stays of what was written"


def test_segments_come_while_the_recording_is_worked_on(transcriber: Transcriber, long_recording: Recording) -> None:
    done: list[float] = []
    segments = transcriber.segments(long_recording.path, on_progress=lambda seconds, _: done.append(seconds))
    first = next(segments)
    assert done[-1] < long_recording.duration
    rest = list(segments)
    assert (first, *rest) == transcriber.transcribe(long_recording.path).segments


def test_closing_the_segments_early_frees_the_transcriber(
    transcriber: Transcriber, folder: Path, long_recording: Recording
) -> None:
    segments = transcriber.segments(long_recording.path.read_bytes())
    assert isinstance(next(segments), Segment)
    segments.close()  # type: ignore[attr-defined]
    assert transcriber.transcribe(clips("en000")[0].path).text
    assert not list((folder / "state" / "spool").rglob("upload"))


def test_threads_may_share_it(transcriber: Transcriber) -> None:
    parts = [clips(name)[0] for name in ("en000", "en003", "de000")]
    alone = [transcriber.transcribe(clip.path, language=clip.language).text for clip in parts]
    together = [""] * len(parts)

    def work(number: int) -> None:
        together[number] = transcriber.transcribe(parts[number].path, language=parts[number].language).text

    threads = [threading.Thread(target=work, args=[number]) for number in range(len(parts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone
    assert all(alone)


def test_options_are_keywords_and_wrong_ones_are_named(transcriber: Transcriber) -> None:
    path = clips("de000")[0].path
    assert transcriber.transcribe(path, language="German").language == "de"
    assert transcriber.transcribe(path, languages=("English",)).language == "en"
    assert all(segment.logprobs for segment in transcriber.transcribe(path, logprobs=True))
    with pytest.raises(InvalidRequest, match="0 to 1"):
        transcriber.transcribe(path, temperature=1.5)
    with pytest.raises(InvalidRequest, match="klingon"):
        transcriber.segments(path, language="klingon")
    with pytest.raises(InvalidRequest, match="translate"):
        transcriber.transcribe(path, task="translate")


def test_outside_of_its_context_it_says_so() -> None:
    with pytest.raises(RuntimeError, match="with Transcriber"):
        Transcriber(backend="faster-whisper", model="micro").transcribe("talk.wav")


def test_a_model_that_is_not_here_is_said_on_entering(tmp_path: Path) -> None:
    with (
        pytest.raises(UnknownModel, match="models pull small"),
        Transcriber(backend="faster-whisper", model="small", hub_dir=str(tmp_path)),
    ):
        pass
