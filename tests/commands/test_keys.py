from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def whisperd(folder: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    given = {name: value for name, value in os.environ.items() if not name.startswith("WHISPERD_")}
    given |= {"WHISPERD_CONFIG": str(folder / "config.toml"), **env}
    command = [sys.executable, "-m", "app", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=given)


def test_a_key_is_printed_alone_so_that_it_can_be_piped_and_lies_beside_the_configuration(tmp_path: Path) -> None:
    done = whisperd(tmp_path, "keys", "add", "phone")
    assert done.returncode == 0
    assert done.stdout.startswith("sk-whisperd-")
    assert len(done.stdout.split()) == 1
    assert "cannot be shown again" in done.stderr
    assert (tmp_path / "keys.json").is_file()


def test_the_list_shows_names_and_limits_and_no_key(tmp_path: Path) -> None:
    assert "There are no keys" in whisperd(tmp_path, "keys", "list").stderr
    secret = whisperd(tmp_path, "keys", "add", "phone", "--max-jobs", "2", "--max-rpm", "30").stdout.strip()
    whisperd(tmp_path, "keys", "add", "boss", "--admin")
    shown = whisperd(tmp_path, "keys", "list", WHISPERD_API_KEY="long enough")
    rows = [line.split() for line in shown.stdout.splitlines()]
    assert [row[0] for row in rows[1:]] == ["default", "phone", "boss"]
    assert rows[2][1:4] == ["use", "2", "30"]
    assert rows[3][1:4] == ["admin", "any", "any"]
    as_json = whisperd(tmp_path, "keys", "list", "--json")
    assert [row["name"] for row in json.loads(as_json.stdout)] == ["phone", "boss"]
    assert secret not in shown.stdout + as_json.stdout
    assert "digest" not in as_json.stdout


def test_revoking_the_last_says_what_follows(tmp_path: Path) -> None:
    whisperd(tmp_path, "keys", "add", "phone")
    done = whisperd(tmp_path, "keys", "revoke", "phone")
    assert (done.returncode, "No key is left" in done.stderr) == (0, True)
    again = whisperd(tmp_path, "keys", "revoke", "phone")
    assert (again.returncode, "no key named 'phone'" in again.stderr) == (1, True)


@pytest.mark.parametrize("words", [("a b",), ("admin",), ("phone", "--max-jobs", "0"), ("phone", "--max-rpm", "many")])
def test_what_cannot_be_is_a_sentence(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = whisperd(tmp_path, "keys", "add", *words)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "keys.json").exists()


def test_a_broken_file_stops_the_server_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text("{")
    done = whisperd(tmp_path, "serve", "--backend", "fake", "--state-dir", str(tmp_path / "state"))
    assert done.returncode == 1
    assert "keys.json cannot be read" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_teaches(tmp_path: Path) -> None:
    text = whisperd(tmp_path, "keys", "--help").stdout
    assert "a lost key is revoked" in " ".join(text.split())
