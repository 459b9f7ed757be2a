"""Disks that fill up, folders that somebody deletes, and a system that has no descriptors left."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from tests.conftest import Recording, Server, StartServer, clips, script_of, wait_for
from tests.faults.test_workers import in_background
from tests.steps import steps_of

CLIP = clips("en000")[0]
TRANSCRIPTIONS = "/v1/audio/transcriptions"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 32 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if not sys.platform.startswith("linux") or os.getuid() != 0 or mount is None:
        pytest.skip("only root on Linux can mount a small disk")
    if subprocess.run([mount, "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(folder)], check=False).returncode:
        pytest.skip("this system mounts nothing")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def spooled(server: Server, state: Path | None = None) -> list[Path]:
    return list(((state or server.log.parent / "state") / "spool").glob("server-*/job-*"))


def fill(folder: Path, leave: int = 0) -> Path:
    """A file that takes all of the disk but for ``leave`` bytes."""
    stuffing = folder / "stuffing"
    with stuffing.open("wb") as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(2**16))
            file.flush()
    if leave:
        os.truncate(stuffing, max(0, stuffing.stat().st_size - leave))
    return stuffing


def refusal(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


def check_refused(response: httpx.Response) -> None:
    assert refusal(response) == (503, "storage_full")
    assert int(response.headers["retry-after"]) >= 1


def complaints(server: Server) -> list[str]:
    """Lines of the log that tell of a bug."""
    return [line for line in server.log.read_text().splitlines() if "Traceback" in line or "unexpected error" in line]


def big(folder: Path, megabytes: int) -> Path:
    path = folder / "big.wav"
    path.write_bytes(CLIP.path.read_bytes() + bytes(megabytes * 2**20))
    return path


def test_a_disk_that_is_full_refuses_uploads_until_there_is_room(
    start_server: StartServer, tmp_path: Path, small_disk: Path
) -> None:
    server = start_server(backend="fake", model=script_of(tmp_path), state_dir=small_disk / "state")
    stuffing = fill(small_disk)
    for _ in range(3):
        check_refused(server.transcribe(CLIP.path))
        check_refused(server.transcribe(big(tmp_path, 4)))
    assert httpx.get(f"{server.url}/health").json()["status"] == "ok"
    assert spooled(server, small_disk / "state") == []
    stuffing.unlink()
    assert server.transcribe(CLIP.path).status_code == 200
    check_refused(server.transcribe(big(tmp_path, 40)))  # more than the disk holds
    assert spooled(server, small_disk / "state") == []
    assert server.transcribe(CLIP.path).status_code == 200
    assert complaints(server) == []
    assert server.stop() == 0


def test_a_disk_that_fills_up_under_the_decoder_costs_that_job_alone(
    start_server: StartServer, tmp_path: Path, small_disk: Path, long_recording: Recording
) -> None:
    compressed = tmp_path / "long.flac"
    to_flac(long_recording.path, compressed)
    server = start_server(backend="fake", model=script_of(tmp_path), state_dir=small_disk / "state")
    stuffing = fill(small_disk, leave=compressed.stat().st_size + 2**20)
    check_refused(server.transcribe(compressed))
    assert spooled(server, small_disk / "state") == []
    assert server.transcribe(CLIP.path).status_code == 200
    stuffing.unlink()
    assert server.transcribe(compressed).status_code == 200
    assert complaints(server) == []
    assert server.stop() == 0


def to_flac(source: Path, target: Path) -> None:
    import av

    with av.open(str(source)) as given, av.open(str(target), "w") as made:
        stream = made.add_stream("flac", rate=16_000, layout="mono")
        for frame in given.decode(audio=0):
            made.mux(stream.encode(frame))
        made.mux(stream.encode(None))


def test_a_disk_that_is_full_takes_no_durable_job_and_loses_none(
    start_server: StartServer, tmp_path: Path, small_disk: Path
) -> None:
    server = start_server(backend="fake", model=script_of(tmp_path), state_dir=small_disk / "state")

    def ask() -> httpx.Response:
        with CLIP.path.open("rb") as file:
            headers = {"Prefer": "respond-async"}
            return httpx.post(f"{server.url}{TRANSCRIPTIONS}", files={"file": file}, headers=headers, timeout=30)

    first = ask()
    assert first.status_code == 202
    job = f"{server.url}/v1/jobs/{first.json()['id']}"
    wait_for(lambda: httpx.get(job).json()["status"] == "completed", 20, server.log)
    stuffing = fill(small_disk)
    for _ in range(3):
        check_refused(ask())
    assert httpx.get(job).json()["status"] == "completed"
    stuffing.unlink()
    second = ask()
    assert second.status_code == 202
    assert complaints(server) == []
    assert server.stop() == 0


@pytest.mark.parametrize("deleted", ["spool", "spool/server-*"])
def test_a_spool_that_somebody_deleted_is_made_anew(start_server: StartServer, tmp_path: Path, deleted: str) -> None:
    server = start_server(backend="fake", model=script_of(tmp_path))
    state = server.log.parent / "state"
    for kill in (False, True):
        for folder in state.glob(deleted):
            shutil.rmtree(folder)
        if kill:  # children that are started now need the spool too
            for child in server.children("app.worker"):
                child.kill()
        assert server.transcribe(CLIP.path).status_code == 200
    (own,) = (state / "spool").glob("server-*")
    assert [folder.stat().st_mode & 0o777 for folder in (own.parent, own)] == [0o700, 0o700]
    other = start_server(backend="fake", model=script_of(tmp_path), state_dir=state)
    assert own.exists(), "another server's start sees that this one lives"
    assert server.transcribe(CLIP.path).status_code == 200
    assert other.stop() == server.stop() == 0
    assert list((state / "spool").iterdir()) == []
    assert complaints(server) == []


def test_a_spool_deleted_under_a_job_costs_that_job_alone(
    start_server: StartServer, tmp_path: Path, long_recording: Recording
) -> None:
    log = tmp_path / "steps"
    server = start_server(backend="fake", model=script_of(tmp_path, seconds_per_step=0.5, log=str(log)), max_batch=1)
    thread, answers = in_background(lambda: server.transcribe(long_recording.path))
    wait_for(lambda: bool(steps_of(log)), 20, server.log)
    shutil.rmtree(server.log.parent / "state" / "spool")
    thread.join(30)
    check_refused(answers[0])
    assert server.transcribe(CLIP.path).status_code == 200
    assert complaints(server) == []
    assert server.stop() == 0


def test_a_state_folder_that_is_read_only_stops_the_start_with_a_sentence(small_disk: Path, tmp_path: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    state = small_disk / "state"
    words = ["--backend", "fake", "--model", str(script_of(tmp_path)), "--port", "0", "--state-dir", str(state)]
    ended = subprocess.run(
        [sys.executable, "-m", "app", "serve", *words], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 1
    assert f"cannot be kept in {state} (Read-only file system)" in ended.stderr
    assert "--state-dir" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_server_with_few_descriptors_refuses_what_it_cannot_take_and_recovers(
    start_server: StartServer, tmp_path: Path
) -> None:
    server = start_server(backend="fake", model=script_of(tmp_path))
    wait_for(lambda: len(server.children("app.worker.decoder")) == 1, 20, server.log)
    process = psutil.Process(server.pid)
    process.rlimit(psutil.RLIMIT_NOFILE, (64, 64))
    free = 64 - process.num_fds()
    assert free > 8
    address = httpx.URL(server.url)
    with contextlib.ExitStack() as idle, ThreadPoolExecutor(16) as pool:
        for _ in range(free - 8):  # who holds the descriptors: clients that say nothing
            idle.enter_context(socket.create_connection((address.host, address.port)))
        answers = [each.result() for each in [pool.submit(server.transcribe, CLIP.path) for _ in range(48)]]
    seen = {answer.status_code for answer in answers}
    assert seen <= {200, 429, 503}, seen
    for answer in answers:
        assert answer.status_code == 200 or int(answer.headers["retry-after"]) >= 1
    wait_for(lambda: server.transcribe(CLIP.path).status_code == 200, 30, server.log)
    for child in server.children("app.worker"):
        child.kill()
    wait_for(lambda: server.transcribe(CLIP.path).status_code == 200, 30, server.log)
    wait_for(lambda: spooled(server) == [], 10, server.log)
    assert complaints(server) == []
    assert server.stop() == 0


def test_files_of_a_job_are_its_users_alone(
    start_server: StartServer, tmp_path: Path, long_recording: Recording
) -> None:
    log = tmp_path / "steps"
    server = start_server(backend="fake", model=script_of(tmp_path, seconds_per_step=0.5, log=str(log)), max_batch=1)
    thread, answers = in_background(lambda: server.transcribe(long_recording.path))
    wait_for(lambda: bool(steps_of(log)), 20, server.log)
    (folder,) = spooled(server)
    for each in (folder, folder.parent, folder.parent.parent):
        assert each.stat().st_mode & 0o777 == 0o700, each
    names = {file.name: file.stat().st_mode & 0o777 for file in folder.iterdir()}
    assert names == {"upload": 0o600, "pcm": 0o600}
    thread.join(60)
    assert answers[0].status_code == 200
    assert server.stop() == 0
