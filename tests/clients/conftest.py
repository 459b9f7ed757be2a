"""What the tests of clients share.

Each test says with ``@pytest.mark.client("its name", ...)`` which client it drives; ``python -m tests.clients.table``
makes docs/compatibility.md of that.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import pytest

from tests.conftest import Clip, Recording, Server, StartServer, clips

PROGRAMS = Path(__file__).parent / "programs"

#: Runs a program of programs/ and returns the JSON that it printed.
RunProgram = Callable[..., Any]


@pytest.fixture(scope="session")
def clip() -> Clip:
    """An English sentence that micro gets word for word."""
    return clips("en000")[0]


@pytest.fixture(scope="session")
def webm(clip: Clip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clip as a browser records it: Opus in WebM."""
    return _encode(clip, tmp_path_factory.mktemp("webm") / "audio.webm", "libopus", 48_000)


@pytest.fixture(scope="session")
def wav(clip: Clip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clip as dictation apps send it: 16 kHz PCM in WAV."""
    return _encode(clip, tmp_path_factory.mktemp("wav") / "audio.wav", "pcm_s16le", 16_000)


def _encode(clip: Clip, path: Path, codec: str, rate: int) -> Path:
    with av.open(str(clip.path)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream(codec, rate=rate, layout="mono")
        for frame in source.decode(audio=0):
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
    return path


@pytest.fixture(scope="session")
def locked(start_server: StartServer) -> Server:
    """A server that wants the key ``open-sesame``."""
    return start_server(backend="fake", model="{}", env={"WHISPERD_API_KEY": "open-sesame"})


@pytest.fixture
def run_python() -> RunProgram:
    """Run ``programs/<name>`` with ``package`` of the extra ``clients``; skips where that is not installed."""

    def run(package: str, name: str, *arguments: object) -> Any:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed (extra 'clients')")
        return _json_of([sys.executable, str(PROGRAMS / name), *map(str, arguments)])

    return run


@pytest.fixture(scope="session")
def run_node(pytestconfig: pytest.Config) -> RunProgram:
    """Run ``programs/<name>`` with node and the packages of ``programs/package.json``, which are installed into
    pytest's cache once.
    """
    folder = _node_folder(pytestconfig)

    def run(name: str, *arguments: object) -> Any:
        shutil.copy(PROGRAMS / name, folder / name)
        return _json_of(["node", str(folder / name), *map(str, arguments)])

    return run


def _node_folder(pytestconfig: pytest.Config) -> Path:
    if importlib.util.find_spec("schemathesis") is None:
        pytest.skip("the extra 'clients' is not installed; npm packages are installed only beside it")
    for tool in ("node", "npm"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not on this machine")
    wanted = (PROGRAMS / "package.json").read_bytes()
    digest = hashlib.sha256(wanted).hexdigest()[:16]
    folder = Path(pytestconfig.cache.mkdir(f"node-{digest}"))
    installed = folder / "installed"
    if not installed.exists():
        (folder / "package.json").write_bytes(wanted)
        command = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode != 0:
            pytest.skip(f"npm install failed: {done.stderr.strip().splitlines()[-1:]}")
        installed.touch()
    return folder


def _json_of(command: list[str]) -> Any:
    environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LANGSMITH_TRACING": "false"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    # Some clients print lines of their own before.
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="session")
def stepwise(start_server: StartServer) -> Server:
    """A server that hears one window a step, so that the deltas of a recording are many however fast the machine."""
    return start_server(backend="faster-whisper", model="micro", max_batch=1)


@pytest.fixture(scope="session")
def answer_to_long(stepwise: Server, long_recording: Recording) -> str:
    """The text of the long recording when it is not streamed."""
    return stepwise.transcribe(long_recording.path).json()["text"]
