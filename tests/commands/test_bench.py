"""``whisperd bench`` as people type it: real processes, the bundled model, the scripted backend for what hangs."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pytest

from app.catalog import MICRO_FOLDER
from tests.conftest import clips, script_of

NUMBER, TEXT = {"type": "number", "exclusiveMinimum": 0}, {"type": "string", "minLength": 1}
#: What programs may rely on.
SCHEMA = {
    "type": "object",
    "required": ["schema", "conditions", "rows"],
    "properties": {
        "schema": {"const": 1},
        "conditions": {
            "type": "object",
            "required": ["machine", "versions", "recordings", "options"],
            "properties": {"machine": {"type": "object", "required": ["chip", "cores", "memory_gib", "system"]}},
        },
        "rows": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["backend", "model", "status", "device", "precision", "libraries", "note", "figures"],
                "properties": {
                    "backend": TEXT,
                    "status": {
                        "enum": ["measured", "failed", "not downloaded", "not installed", "not usable", "not run"]
                    },
                    "figures": {
                        "type": ["object", "null"],
                        "required": ["speed", "seconds", "load_s", "rounds_s", "error_rate", "short_s", "library_peak"],
                        "properties": {
                            **dict.fromkeys(["speed", "seconds", "audio_s", "load_s", "memory"], NUMBER),
                            "rounds_s": {"type": "array", "items": NUMBER, "minItems": 1},
                            "device": TEXT,
                            "precision": TEXT,
                            "error_rate": {"type": ["number", "null"], "minimum": 0},
                        },
                    },
                },
                "if": {"properties": {"status": {"const": "measured"}}},
                "then": {"properties": {"figures": {"type": "object"}}},
                "else": {"properties": {"figures": {"type": "null"}}},
            },
        },
    },
}


def command(folder: Path, *words: object) -> tuple[list[str], dict[str, str]]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WHISPERD_")}
    environment |= {"WHISPERD_CONFIG": str(folder / "none.toml")}
    folders = ["--state-dir", folder / "state", "--cache-dir", folder / "cache", "--hub-dir", folder / "hub"]
    return [sys.executable, "-m", "app", "bench", *map(str, [*words, *folders])], environment


def bench(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    line, environment = command(folder, *words)
    return subprocess.run(line, capture_output=True, text=True, timeout=180, env=environment)


def manifest(folder: Path) -> Path:
    rows = [{"file": str(clip.path), "text": clip.text, "language": clip.language} for clip in clips("en00")[:3]]
    path = folder / "manifest.json"
    path.write_text(json.dumps(rows))
    return path


def test_where_no_model_is_downloaded_micro_is_measured_and_that_is_said(tmp_path: Path) -> None:
    words = ["--backends", "faster-whisper", "--manifest", manifest(tmp_path), "--rounds", 1]
    result = bench(tmp_path, *words)
    assert result.returncode == 0, result.stderr
    assert "micro  faster-whisper  cpu" in result.stdout
    assert "word errors" in result.stdout
    assert "understands no person" in result.stdout
    assert f"All figures: {tmp_path / 'state' / 'bench' / 'bench.json'}" in result.stdout
    assert result.stderr == (
        "No model is downloaded, so the bundled toy model micro is measured. "
        "`whisperd models pull base` brings a real one.\n"
    )
    again = bench(tmp_path, *words, "--json", "--quoted")
    assert "Measured before, and kept: faster-whisper micro." in again.stderr
    data = json.loads(again.stdout)
    jsonschema.validate(data, SCHEMA)
    assert [row["status"] for row in data["rows"]].count("not run") == 8, "what people quote"
    assert data["rows"][-1]["figures"]["error_rate"] <= 0.1
    jsonschema.validate(json.loads((tmp_path / "state" / "bench" / "bench.json").read_text()), SCHEMA)


def test_without_recordings_the_bundled_ones_are_joined(tmp_path: Path) -> None:
    result = bench(
        tmp_path, "--backends", "faster-whisper", "--models", "micro", "--rounds", 1, "--out", tmp_path / "o"
    )
    assert result.returncode == 0, result.stderr
    assert "Bundled synthetic sentences: 59 joined to four minutes, and one alone; one round." in result.stdout
    (row,) = json.loads((tmp_path / "o" / "bench.json").read_text())["rows"]
    assert row["figures"]["audio_s"] > 200
    assert row["figures"]["words"] > 500
    assert row["figures"]["short_s"] < row["figures"]["seconds"]


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="matplotlib is not installed")
def test_ctrl_c_keeps_what_is_done_and_the_next_run_goes_on_there(tmp_path: Path) -> None:
    script = script_of(tmp_path, warm_up="hang")
    words = ["--backends", "faster-whisper,fake", "--models", f"micro={MICRO_FOLDER},micro={script}", "--rounds", 1]
    words += ["--manifest", manifest(tmp_path), "--out", tmp_path / "out", "--chart", tmp_path / "chart.png"]
    line, environment = command(tmp_path, *words)
    file = tmp_path / "out" / "bench.json"
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
        deadline = time.monotonic() + 120
        while not file.exists() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        shown, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert "1 of the rows not measured; the same command goes on there." in said
    lines = {tuple(words[:2]): words[2:] for words in map(str.split, shown.splitlines())}
    assert lines["micro", "faster-whisper"][0] == "cpu"
    assert lines["micro", "fake"] == ["not", "run"]
    before = json.loads(file.read_text())["rows"]
    assert [row["backend"] for row in before] == ["faster-whisper"]

    script_of(tmp_path, text="hello")
    result = bench(tmp_path, *words, "--resume")
    assert result.returncode == 0, result.stderr
    assert "Measured before, and kept: faster-whisper micro." in result.stderr
    after = {row["backend"]: row for row in json.loads(file.read_text())["rows"]}
    assert after["faster-whisper"] == before[0], "not measured again"
    assert after["fake"]["status"] == "measured"
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")


def test_one_row_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    bad, good = tmp_path / "bad", tmp_path / "good"
    bad.mkdir()
    good.mkdir()
    models = f"a={script_of(bad, load='unavailable')},b={script_of(good)}"
    words = ["--backends", "fake", "--models", models, "--rounds", 1, clips("en000")[0].path]
    result = bench(tmp_path, *words)
    assert result.returncode == 0, result.stderr
    assert "a on fake: failed. The model could not be loaded: The script says that" in result.stdout
    assert "b      fake     cpu" in result.stdout
    assert "word errors" not in result.stdout, "without references"
    assert "1 recording, without references; one round." in result.stdout

    script_of(bad)
    result = bench(tmp_path, *words)
    assert "kept: fake b." in result.stderr, "what failed is tried again"
    assert "a      fake     cpu" in result.stdout
    result = bench(tmp_path, *words, "--fresh")
    assert "kept" not in result.stderr


def test_figures_of_other_recordings_are_kept_elsewhere_and_resume_says_no(tmp_path: Path) -> None:
    words = ["--backends", "fake", "--models", f"a={script_of(tmp_path)}", "--rounds", 1, "--out", tmp_path]
    assert bench(tmp_path, *words, clips("en000")[0].path).returncode == 0
    before = (tmp_path / "bench.json").read_text()
    refused = bench(tmp_path, *words, clips("en001")[0].path, "--resume")
    assert refused.returncode == 1
    assert "other conditions (recordings): --out takes another folder, --fresh starts over." in refused.stderr
    assert (tmp_path / "bench.json").read_text() == before
    other = bench(tmp_path, *words, clips("en001")[0].path)
    assert other.returncode == 0
    assert f"They are kept as {tmp_path / 'bench-1.json'}" in other.stderr
    assert (tmp_path / "bench-1.json").read_text() == before


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--backends", "kaldi"], 1, "There is no backend 'kaldi'"),
        (["--models", "./nowhere"], 1, "There is no folder './nowhere'"),
        (["--rounds", "0"], 1, "one round at least"),
        (["nowhere.wav"], 1, "no file or folder 'nowhere.wav'"),
        (["--precision", "int8", "--device", "abacus", "--rounds", "1", "--backends", "faster-whisper"], 1, "failed."),
        (["--backends", "faster-whisper", "--models", "small"], 1, "`whisperd models pull small --backend faster-w"),
        (["--fresh", "--resume"], 2, "not allowed with"),
    ],
)
def test_what_cannot_be_measured_is_a_sentence(tmp_path: Path, words: list[str], code: int, said: str) -> None:
    result = bench(tmp_path, *words)
    assert result.returncode == code
    assert said in result.stdout + result.stderr
    assert "Traceback" not in result.stderr
