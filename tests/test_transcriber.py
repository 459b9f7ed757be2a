from __future__ import annotations

from pathlib import Path

import pytest

from app.errors import UndecodableAudio, UnknownModel, UnsupportedAudio
from app.settings import load_settings
from app.transcriber import Transcriber
from app.transcript import Options
from tests.conftest import Recording, clips, word_error_rate


def test_a_file_becomes_a_transcript_with_words_and_progress(tmp_path: Path, long_recording: Recording) -> None:
    seen: list[tuple[float, float]] = []
    settings = load_settings(
        backend="faster-whisper", model="micro", cache_dir=str(tmp_path / "cache"), state_dir=str(tmp_path / "state")
    )
    with Transcriber(settings) as transcriber:
        transcript = transcriber.transcribe(
            long_recording.path,
            Options(words=True),
            on_progress=lambda done, whole: seen.append((done, whole)),
        )
        assert word_error_rate([long_recording.text], [transcript.text]) <= 0.05
        assert transcript.language == "en"
        assert transcript.words
        assert seen == sorted(seen)
        assert seen[-1] == pytest.approx((long_recording.duration, long_recording.duration), abs=0.1)
        assert any(0 < done < long_recording.duration for done, _ in seen), "progress is seen on the way"
        with pytest.raises(UndecodableAudio, match="no file"):
            transcriber.transcribe(tmp_path / "missing.wav")
        (tmp_path / "letter.txt").write_text("Dear Sir")
        with pytest.raises(UnsupportedAudio):
            transcriber.transcribe(tmp_path / "letter.txt")
        assert transcriber.transcribe(clips("de000")[0].path).language == "de", "it goes on after a bad file"
    assert list((tmp_path / "state" / "spool").iterdir()) == []


def test_a_model_that_is_not_here_is_said_on_entering(tmp_path: Path) -> None:
    with (
        pytest.raises(UnknownModel, match="models pull small"),
        Transcriber(backend="faster-whisper", model="small", hub_dir=str(tmp_path)),
    ):
        pass
