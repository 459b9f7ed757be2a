"""The first start on a new machine: no weights, then a download, then text. The hub is a stand-in on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from app import convert
from app.catalog import MICRO_FOLDER
from tests.conftest import StartServer, clips, word_error_rate
from tests.hub import Hub

CLIP = clips("en000")[0]
REPOSITORY = "Systran/faster-whisper-tiny"


def environment(endpoint: str, folder: Path) -> dict[str, str]:
    return {"HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(folder), "WHISPERD_CONFIG": "/none.toml"}


def micro_in_ctranslate2(folder: Path) -> dict[str, bytes]:
    converted = convert.convert(MICRO_FOLDER, "ctranslate2", folder / "micro")
    return {path.name: path.read_bytes() for path in converted.iterdir()}


def test_serve_with_pull_downloads_the_model_and_then_serves_it(
    start_server: StartServer, hub: tuple[str, type[Hub]], tmp_path: Path
) -> None:
    endpoint, repositories = hub
    repositories.repositories[REPOSITORY] = micro_in_ctranslate2(tmp_path)
    server = start_server(backend="faster-whisper", model="tiny", pull=True, env=environment(endpoint, tmp_path / "hf"))
    assert word_error_rate([CLIP.text], [server.transcribe(CLIP.path, model="tiny").json()["text"]]) == 0
    seen = len(repositories.seen)
    response = server.transcribe(CLIP.path, model="base")
    assert response.status_code == 404
    assert len(repositories.seen) == seen, "a request never downloads"
    server.stop()


def test_models_pull_prints_the_folder_and_shows_no_bar_in_a_pipe(hub: tuple[str, type[Hub]], tmp_path: Path) -> None:
    endpoint, repositories = hub
    repositories.repositories[REPOSITORY] = micro_in_ctranslate2(tmp_path)
    command = [sys.executable, "-m", "app", "models", "pull", "tiny", "--backend", "faster-whisper"]
    result = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={**os.environ, **environment(endpoint, tmp_path / "hf")},
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    assert (Path(result.stdout.strip()) / "model.bin").is_file()
    assert "%" not in result.stderr
