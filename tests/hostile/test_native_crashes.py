"""Decoders that crash, are killed or stop while they have a file in hand."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import anyio
import pytest

from app.engine import decoders as decoders_module
from app.engine.decoders import Decoders
from app.errors import UndecodableAudio
from app.metrics import Metrics
from app.worker.messages import Decoded, Limits
from tests.conftest import StartServer, children_of
from tests.hostile import kill_decoders
from tests.hostile.media import CLIP, encode, speech

#: Of the script's 500.
TIMES = 20
#: Nothing here takes a tenth of it.
HANGS_S = 60


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def decoders(tmp_path: Path) -> AsyncIterator[Decoders]:
    (tmp_path / "empty").mkdir()
    pool = Decoders(tmp_path / "empty", Limits(), Metrics())
    yield pool
    await pool.aclose()


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "recording"
    path.write_bytes(kill_decoders.recording())
    return path


async def through(decoders: Decoders, source: Path, pcm: Path, number: int, deaths: int) -> list[Decoded]:
    """All parts of ``source``, whose decoders get the signal after their first part, so many of them."""
    parts: list[Decoded] = []
    known: set[int] = set()
    with anyio.fail_after(HANGS_S):
        async with aclosing(decoders.decode(source, pcm)) as coming:
            async for part in coming:
                parts.append(part)
                for child in children_of(os.getpid(), "app.worker.decoder"):
                    if child.pid not in known and len(known) < deaths:
                        known.add(child.pid)
                        os.kill(child.pid, number)
    assert len(known) == deaths
    return parts


@pytest.mark.anyio
@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT, signal.SIGSTOP])
async def test_a_file_whose_decoder_dies_once_is_decoded_whole_by_another(
    number: int, decoders: Decoders, recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoders_module, "PIECE_TIMEOUT_S", 5)
    parts = await through(decoders, recording, tmp_path / "pcm", number, 1)
    assert parts[-1].done
    assert parts[-1].samples == (tmp_path / "pcm").stat().st_size / 2
    assert parts[-1].samples == pytest.approx(30 * len(speech()), abs=1_600)


@pytest.mark.anyio
@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGSTOP])
async def test_a_file_whose_decoder_dies_twice_is_refused_and_the_next_is_not(
    number: int, decoders: Decoders, recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoders_module, "PIECE_TIMEOUT_S", 5)
    with pytest.raises(UndecodableAudio, match="makes the decoder fail"):
        await through(decoders, recording, tmp_path / "pcm", number, 2)
    assert (await through(decoders, CLIP.path, tmp_path / "pcm", number, 0))[-1].done


@pytest.mark.anyio
@pytest.mark.parametrize(("container", "codec"), [("ipod", "aac"), ("ogg", "libopus"), ("wav", "pcm_f32le")])
async def test_eight_channels_that_crash_pyav_are_decoded_by_the_first_child(
    container: str, codec: str, decoders: Decoders, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.write_bytes(encode(speech(), container, codec, rate=48_000, layout="7.1"))
    parts = await through(decoders, source, tmp_path / "pcm", 0, 0)
    assert parts[-1].samples == pytest.approx(len(speech()), abs=1_600)
    assert decoders._metrics.worker_restarts.labels("decoder")._value.get() == 0


def test_whoever_is_killed_the_next_recording_is_heard(start_server: StartServer) -> None:
    server = start_server(backend="fake", model="fake")
    spool = server.log.parent / "state" / "spool"
    findings = kill_decoders.kill(server.url, server.pid, spool, range(TIMES))
    assert not findings.wrong, f"python -m tests.hostile.kill_decoders --times 1 --first N: {findings.wrong}"
    assert findings.next_ones == TIMES
    assert sum(count for (_, hits, _), count in findings.answers.items() if hits) > TIMES / 2, "nothing was hit"


def test_the_script_ends_with_0_where_all_is_well() -> None:
    command = [sys.executable, "-m", "tests.hostile.kill_decoders", "--times", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "next ones heard: 2" in done.stdout
