"""What people say and send stays out of logs and metrics, leaves the disk when it is done, and never this machine."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import psutil
import pytest

from tests.conftest import Server, StartServer, clips, free_port, script_of, wait_for

CLIP = clips("en001")[0]
#: Words of the recording, of the prompt, of the file's name and of the key: none is one that the server says itself.
SPOKEN = [word for word in re.findall(r"[a-z]{5,}", CLIP.text.lower()) if word not in ("about", "their", "there")]
PROMPT, NAME, KEYWORD, KEY = "Xanthippe", "Quetzalcoatl", "Zwieback", "sesame-open-sesame"
CONTROL = "\r\nlevel=error \x1b[31mforged"


def post(server: Server, **fields: str) -> httpx.Response:
    data = {"prompt": PROMPT + CONTROL, "keywords[]": KEYWORD, "language": "en", **fields}
    files = {"file": (f"../{NAME}{CONTROL}.wav", CLIP.path.read_bytes())}
    headers = {"Authorization": f"Bearer {KEY}", "User-Agent": NAME, "X-Request-Id": "bad id\x1b[31m"}
    url = f"{server.url}/v1/audio/transcriptions?prompt={PROMPT}"
    return httpx.post(url, files=files, data=data, headers=headers, timeout=120)


def test_no_word_no_name_and_no_key_is_logged_or_counted_even_when_all_is_logged_and_things_go_wrong(
    start_server: StartServer,
) -> None:
    assert len(SPOKEN) >= 3
    server = start_server(
        backend="faster-whisper", model="micro", log_level="debug", retry_keep_s=60, env={"WHISPERD_API_KEY": KEY}
    )
    told = [post(server), post(server, response_format="verbose_json"), post(server, stream="true")]
    assert all(any(word in answer.text.lower() for word in SPOKEN) for answer in told), [each.text for each in told]
    assert post(server, temperature=PROMPT).status_code == 400
    assert post(server, model=PROMPT).status_code == 404
    assert post(server, language="xx").status_code == 400
    headers = {"Authorization": f"Bearer {KEY}"}
    bad = httpx.post(f"{server.url}/v1/audio/transcriptions", files={"file": (NAME, PROMPT.encode())}, headers=headers)
    assert bad.status_code == 400
    httpx.get(f"{server.url}/v1/{NAME}?{PROMPT}", headers={"api-key": KEYWORD})
    for worker in server.children("app.worker.child"):
        worker.kill()
    assert post(server, temperature="0.2").status_code == 200
    metrics = httpx.get(f"{server.url}/metrics", headers=headers).text
    assert server.stop() == 0
    written = server.log.read_text(errors="replace") + metrics
    assert "job ended" in written
    for secret in (*SPOKEN, PROMPT, NAME, KEYWORD, KEY, "forged", "sesame"):
        assert secret.lower() not in written.lower(), secret
    assert not set(written) - {"\n"} & {chr(code) for code in (*range(32), 127)}, "no control characters"


def test_an_upload_is_for_its_user_alone_while_it_is_worked_on_and_gone_afterwards(
    start_server: StartServer, tmp_path: Path
) -> None:
    server = start_server(backend="fake", model=script_of(tmp_path, seconds_per_step=1))
    state = server.log.parent / "state"
    thread = threading.Thread(target=lambda: server.transcribe(CLIP.path))
    thread.start()
    wait_for(lambda: len(list(state.rglob("pcm"))) == 1, 10, server.log)
    for path in [state, *state.rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode & 0o077 == 0, f"{path.relative_to(state)} is {mode:o}"
    thread.join()
    left = [path for path in state.rglob("*") if path.is_file() and path.stat().st_size and "sqlite" not in path.name]
    assert left == []
    server.stop()
    assert not list((state / "spool").iterdir())


def test_no_library_keeps_an_account_of_its_use(start_server: StartServer, tmp_path: Path) -> None:
    """onnxruntime's telemetry begins with its import: a device id and a store in the cache folder, then uploads."""
    home = tmp_path / "home"
    home.mkdir()
    places = {"HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache")}
    # What would keep it quiet by itself: signs that tests run, or that it was told to.
    quiet = {"CI": "", "GITHUB_ACTIONS": "", "ORT_RUNNING_UNIT_TESTS": "", "ORT_DISABLE_TELEMETRY": "0"}
    server = start_server(backend="faster-whisper", model="micro", env={**places, **quiet})
    assert server.transcribe(CLIP.path).status_code == 200
    server.stop()
    kept = [str(path) for path in home.rglob("*") if "microsoft" in str(path).lower() or "onnx" in path.name.lower()]
    assert kept == []


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not here")
def test_nothing_leaves_the_machine(tmp_path: Path) -> None:
    """From the start to the end of a server with a real model, none of its processes connects or sends anywhere."""
    calls, port = tmp_path / "calls", free_port()
    trace = ["strace", "-f", "-qq", "--seccomp-bpf", "-e", "trace=connect,sendto,sendmsg", "-o", str(calls)]
    flags = ["--port", str(port), "--state-dir", str(tmp_path / "state"), "--cache-dir", str(tmp_path / "cache")]
    command = [sys.executable, "-m", "app", "serve", "--backend", "faster-whisper", "--model", "micro", *flags]
    env = {name: value for name, value in os.environ.items() if not name.startswith("WHISPERD_")}
    env |= {"WHISPERD_CONFIG": str(tmp_path / "none.toml"), "HF_HOME": str(tmp_path / "hub")}
    log = tmp_path / "log"
    with log.open("wb") as stderr:
        process = subprocess.Popen([*trace, *command], stderr=stderr, env=env)
    server = Server(f"http://127.0.0.1:{port}", process, log)
    try:
        server.wait_until_ready()
        assert server.transcribe(CLIP.path).status_code == 200
        assert server.transcribe(CLIP.path, model="large-v3").status_code == 404
    finally:
        for traced in psutil.Process(process.pid).children():  # strace itself hears no signal
            traced.terminate()
        process.wait(30)
    lines = calls.read_text().splitlines()
    addressed = [line for line in lines if "AF_INET" in line]
    assert addressed == [], addressed[:5]
