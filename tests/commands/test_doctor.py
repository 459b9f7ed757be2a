"""``whisperd doctor`` as people type it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.commands.test_cli import whisperd

FOLDERS = ("--cache-dir", "--state-dir", "--hub-dir")


def doctor(tmp_path: Path, *words: object, **env: str) -> tuple[int, str]:
    folders = [word for flag in FOLDERS for word in (flag, tmp_path / flag.strip("-"))]
    done = whisperd("doctor", "--backend", "faster-whisper", "--model", "micro", "--port", 0, *folders, *words, env=env)
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_all_is_well_with_micro(tmp_path: Path) -> None:
    code, said = doctor(tmp_path)
    assert code == 0, said
    lines = {line.split()[1]: line for line in said.splitlines() if line and not line.startswith(" ")}
    assert lines["faster-whisper"].startswith("ok        faster-whisper  Transcribed the sample on ")
    assert {"machine", "python", "settings", "model", "state_dir", "key", "port", "service"} <= lines.keys()
    assert "\033" not in said


def test_what_failed_has_its_remedy_and_the_exit_status_says_so(tmp_path: Path) -> None:
    code, said = doctor(tmp_path, "--quick", "--model", "small")
    assert code == 1
    assert "FAILED    model           The model 'small' is not downloaded" in said
    assert "-> whisperd models pull small --backend faster-whisper" in said
    assert said.rstrip().endswith("1 of these failed; the line under each says what to do.")


def test_a_bad_setting_is_one_failure_among_checks_that_go_on(tmp_path: Path) -> None:
    code, said = doctor(tmp_path, "--quick", "--json", WHISPERD_DRAIN_S="soon")
    found = {check["name"]: check for check in json.loads(said)["checks"]}
    assert code == 1
    assert found["settings"]["status"] == "failed"
    assert "'drain_s' cannot be used" in found["settings"]["found"]
    assert found["python"]["status"] == "ok"
    assert {"faster-whisper", "model", "port"} <= found.keys()


@pytest.mark.parametrize("key", ["a-very-secret-key"])
def test_no_key_is_ever_shown(tmp_path: Path, key: str) -> None:
    for words in (["--quick"], ["--quick", "--json"]):
        assert key not in doctor(tmp_path, *words, WHISPERD_API_KEY=key)[1]
