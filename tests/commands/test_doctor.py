"""``whisperd doctor`` as people type it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.commands.test_cli import whisperd

FOLDERS = ("--cache-dir", "--state-dir", "--hub-dir")


def as_a_user() -> list[str]:
    """What to start a command with, so that it is kept from what is closed: root's right to read everything goes."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("root may read everything, and setpriv is not here")
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]


def doctor(tmp_path: Path, *words: object, before: Sequence[str] = (), **env: str) -> tuple[int, str]:
    folders = [word for flag in FOLDERS for word in (flag, tmp_path / flag.strip("-"))]
    chosen = ("--backend", "faster-whisper", "--model", "micro", "--port", 0)
    done = whisperd("doctor", *chosen, *folders, *words, env=env, before=before)
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
    assert "-> Download it with: whisperd models pull small --backend faster-whisper" in said
    assert said.rstrip().endswith("1 of these failed; the line under each says what to do.")


def test_a_bad_setting_is_one_failure_among_checks_that_go_on(tmp_path: Path) -> None:
    code, said = doctor(tmp_path, "--quick", "--json", WHISPERD_DRAIN_S="soon")
    found = {check["name"]: check for check in json.loads(said)["checks"]}
    assert code == 1
    assert found["settings"]["status"] == "failed"
    assert "'drain_s' cannot be used" in found["settings"]["found"]
    assert found["python"]["status"] == "ok"
    assert {"faster-whisper", "model", "port"} <= found.keys()


def test_json_has_machine_choice_and_checks(tmp_path: Path) -> None:
    said = json.loads(doctor(tmp_path, "--quick", "--json")[1])
    assert said["machine"]["memory"] > 0
    assert said["choice"]["backend"] == "faster-whisper"
    assert said["choice"]["model"] == "micro"
    assert {"name", "status", "found", "remedy"} == said["checks"][0].keys()


def test_what_may_not_be_read_is_a_failure_and_not_the_end(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    (closed / "within").mkdir(parents=True)
    closed.chmod(0o000)
    folders = ("--state-dir", closed / "new", "--hub-dir", closed / "within")
    code, said = doctor(tmp_path, "--quick", *folders, before=as_a_user())
    closed.chmod(0o700)
    lines = {line.split()[1]: line for line in said.splitlines() if line and not line.startswith(" ")}
    assert code == 1
    for name in ("models", "state_dir", "hub_dir"):
        assert lines[name].startswith("FAILED")
        assert "Permission denied" in lines[name]
    assert "port" in lines


def test_a_backend_that_cannot_load_is_a_check_and_nothing_besides(tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "ctranslate2.py").write_text("raise ImportError('libcudart.so.12: no such file')")
    code, said = doctor(tmp_path, PYTHONPATH=f"{tmp_path / 'broken'}:{os.environ.get('PYTHONPATH', '')}")
    assert code == 1
    assert "FAILED    faster-whisper  The model could not be loaded" in said


@pytest.mark.parametrize("key", ["a-very-secret-key"])
def test_no_key_is_ever_shown(tmp_path: Path, key: str) -> None:
    for words in (["--quick"], ["--quick", "--json"]):
        assert key not in doctor(tmp_path, *words, WHISPERD_API_KEY=key)[1]
