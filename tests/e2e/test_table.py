"""What the performance table is made of: recordings of a length, figures of samples, and the three sides."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from app.bench.usage import Watch, cpu_seconds, memory_kind
from benchmarks import corpus, report
from benchmarks.recordings import samples
from benchmarks.rows import length_name, length_of
from benchmarks.sides import running
from tests.conftest import AUDIO, Clip, clips, word_error_rate

#: Clips of 0.5, 1.5, ... 11.5 s, in which a number is said.
LADDER = [Clip(Path(f"{number}.wav"), "en", number + 0.5, f"number {number}") for number in range(12)]


class TestChoosing:
    def test_clips_that_have_the_length_come_whole_and_the_nearest_first(self) -> None:
        found = corpus.choose(LADDER, 10, 4)

        assert [choice.seconds for choice in found] == [10.5, 9.5, 11.5, 8.5]
        assert all(len(choice.parts) == 1 for choice in found)

    @pytest.mark.parametrize("seconds", [30, 300, 3600])
    def test_longer_ones_are_joined_to_at_most_the_length_and_all_differ(self, seconds: float) -> None:
        found = corpus.choose(clips("en"), seconds, 3)

        assert all(0.95 * seconds <= choice.seconds <= seconds for choice in found)
        assert len({choice.text for choice in found}) == 3
        assert found == corpus.choose(clips("en"), seconds, 3)

    def test_what_is_too_long_is_cut_only_where_nothing_else_is_there(self) -> None:
        (whole,) = corpus.choose(clips("en"), 2, 1)
        (cut,) = corpus.choose(clips("en"), 1, 1)

        assert (whole.cut, whole.text) == (None, whole.parts[0].text)
        assert (cut.cut, cut.text, cut.seconds) == (1, None, 1)

    def test_clips_that_run_out_come_again_as_other_files(self, tmp_path: Path) -> None:
        clip = clips("en")[0]

        made = corpus.make(corpus.choose([clip], clip.duration, 2), tmp_path)

        assert [each.text for each in made] == [clip.text] * 2
        assert made[0].path.read_bytes() != made[1].path.read_bytes()
        assert made[0].seconds == pytest.approx(clip.duration, abs=0.01)

    def test_joined_recordings_have_pauses_between(self, tmp_path: Path) -> None:
        first, second = clips("en")[:2]

        (made,) = corpus.make([corpus.Choice((first, second))], tmp_path)

        assert made.text == f"{first.text} {second.text}"
        assert len(samples(made.path)) / 16_000 == pytest.approx(first.duration + second.duration + 0.5, abs=0.01)

    def test_a_manifest_need_not_say_how_long_its_files_are(self, tmp_path: Path) -> None:
        manifest = tmp_path / "manifest.json"
        manifest.write_text(f'[{{"file": "{AUDIO / "en000.flac"}", "language": "en", "text": "x"}}]')

        (clip,) = corpus.read(manifest)

        assert clip.duration == pytest.approx(clips("en000")[0].duration, abs=0.01)


@pytest.mark.parametrize(("name", "seconds"), [("1s", 1), ("2.5s", 2.5), ("90s", 90), ("5min", 300), ("1h", 3600)])
def test_lengths_have_names(name: str, seconds: float) -> None:
    assert (length_of(name), length_name(seconds)) == (seconds, name)


def sample(round_: int, seconds: float, text: str) -> dict[str, object]:
    return {
        "round": round_,
        "recordings": [0],
        "seconds": seconds,
        "requests": [seconds],
        "cpu_seconds": 2 * seconds,
        "peak": (100 + round_) * 2**20,
        "texts": [text],
    }


ROW = {
    "name": "10s",
    "seconds": 10.0,
    "callers": 1,
    "burst": False,
    "recordings": [{"seconds": 9.8, "text": "north east south press 1"}],
    "samples": {
        "whisperd": [
            sample(number, seconds, "North, east south press one!") for number, seconds in enumerate([1, 2, 4])
        ],
        "library": [sample(number, seconds, "north east south press 2") for number, seconds in enumerate([2, 2, 10])],
    },
}
RESULTS = {
    "machine": "a machine",
    "date": "2026-01-02",
    "backend": "faster-whisper",
    "model": "base",
    "versions": {"whisperd": "0.1"},
    "beam_size": 1,
    "flags": ["--threads=4"],
    "memory": "pss",
    "loaded": {"whisperd": 2**20, "library": 2**21},
    "sides": ["whisperd", "library"],
    "rows": [ROW],
    "accuracy": None,
}


class TestReport:
    def test_figures_are_medians_over_the_rounds_and_ratios_within_them(self) -> None:
        ours = report.figures(ROW, "whisperd")

        assert ours == report.Figures(seconds=2, speed=pytest.approx(4.9), cpu_seconds=4, peak=102 * 2**20, errors=0)
        assert report.ratio(ROW, "library") == 2
        assert report.figures(ROW, "plain") is None

    def test_a_row_shows_all_sides_in_each_cell(self) -> None:
        text = report.markdown(RESULTS)

        assert "| 10 s | 2.00 / 2.00 | 4.90 / 4.90 | 2.00 | 4.00 / 4.00 | 102 / 102 | 0.00 / 20.00 |" in text

    def test_word_errors_clip_by_clip_are_told_by_language_and_in_points(self) -> None:
        spoken = [{"language": language, "seconds": 3, "text": "rot gelb blau braun"} for language in ("en", "de")]
        texts = {"whisperd": ["rot gelb blau braun", "rot gelb blau"], "library": ["rot gelb blau braun", "rot gelb"]}

        text = report.markdown({**RESULTS, "accuracy": {"clips": spoken, "texts": texts}})

        assert "| 1 de | 3 | 25.00 | 50.00 | -25.00 |" in text
        assert "| 2 in all | 6 | 12.50 | 25.00 | -12.50 |" in text

    def test_a_row_of_recordings_that_were_cut_has_no_word_errors(self) -> None:
        row = {**ROW, "recordings": [{"seconds": 10, "text": None}]}

        assert report.figures(row, "whisperd").errors is None
        assert "cut of longer clips" in report.markdown({**RESULTS, "rows": [row]})


def test_all_sides_answer_and_are_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHISPERD_CACHE_DIR", str(tmp_path))
    clip = clips("en000")[0]
    flags = ["--cache-dir", str(tmp_path)]

    with running("faster-whisper", "micro", beam_size=1, flags=flags) as sides:
        kind = memory_kind(side.pid for side in sides.values())
        for side in sides.values():
            with Watch(side.pid, kind) as watch:
                answer = side.transcribe(clip.path, "en")

            assert word_error_rate([clip.text], [answer.text]) < 0.2
            assert answer.seconds > 0
            assert watch.cpu_seconds > 0
            assert watch.peak > 50 * 2**20

    assert list(sides) == ["whisperd", "library", "plain"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what children took that have ended")
def test_the_seconds_of_children_that_have_ended_are_counted() -> None:
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    program = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}]); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        parent.stdout.readline()

        assert cpu_seconds(parent.pid) >= 0.3

        parent.communicate("\n")
