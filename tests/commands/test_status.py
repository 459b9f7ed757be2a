"""``whisperd status``, of real servers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app import __version__
from tests.commands.terminal import Terminal
from tests.commands.test_cli import port_of, whisperd
from tests.conftest import Server, StartServer, clips, free_port, script_of, wait_for

CLIP, OTHER = clips("en000")[0], clips("en024")[0]


@pytest.fixture(scope="module")
def busy(start_server: StartServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with one job that runs and one that waits, both for longer than any test."""
    script = script_of(tmp_path_factory.mktemp("script"), seconds_per_step=600)
    server = start_server(backend="fake", model=script, drain_s=0)
    for clip in (CLIP, OTHER):
        with clip.path.open("rb") as sound:
            answer = httpx.post(
                f"{server.url}/v1/audio/transcriptions", files={"file": sound}, headers={"Prefer": "respond-async"}
            )
        assert answer.status_code == 202
    wait_for(lambda: len(httpx.get(f"{server.url}/v1/queue").json()["data"]) == 2, 30)
    yield server
    server.process.kill()


def test_an_idle_server_is_said_to_be_ready_and_what_with(server: Server) -> None:
    result = whisperd("status", "--port", port_of(server))
    assert result.returncode == 0
    first, second, _, last = result.stdout.splitlines()
    assert first == f"whisperd {__version__} at {server.url}: ready"
    assert second.startswith("micro on faster-whisper (cpu")
    assert last == "Nothing is queued."


def test_jobs_are_a_table(busy: Server) -> None:
    _, _, _, head, *rows = whisperd("status", "--once", "--port", port_of(busy)).stdout.splitlines()
    assert head.split() == ["place", "status", "progress", "audio", "ready", "in", "model", "age"]
    assert [row.split()[0] for row in rows] == ["1", "2"]
    assert all("[" + " " * 20 + "]   0%" in row for row in rows)


def test_the_facts_as_json(busy: Server) -> None:
    facts = json.loads(whisperd("status", "--json", "--port", port_of(busy)).stdout)
    assert (facts["running"], facts["ready"], facts["version"]) == (True, True, __version__)
    assert facts["details"]["backend"] == "fake"
    assert [entry["position"] for entry in facts["queue"]] == [1, 2]
    assert facts["queue"][0]["audio_s"] == pytest.approx(CLIP.duration, abs=0.1)


def test_where_nothing_runs_it_says_how_to_start(server: Server) -> None:
    port = free_port()
    result = whisperd("status", "--port", port)
    assert result.returncode == 3
    assert result.stderr == f"No whisperd runs at http://127.0.0.1:{port}; `whisperd serve` starts one.\n"
    assert json.loads(whisperd("status", "--json", "--port", port).stdout)["running"] is False


def test_a_server_that_is_not_ready_says_why(start_server: StartServer, tmp_path: Path) -> None:
    script = script_of(tmp_path, load="raise")
    server = start_server(backend="fake", model=script, ready=False)
    wait_for(lambda: httpx.get(f"{server.url}/health").json()["state"] == "failed", 30)
    shown = whisperd("status", "--port", port_of(server)).stdout
    assert "not ready: The model could not be loaded" in shown
    assert "fake: failed, " in shown


def test_without_the_key_the_queue_is_not_shown(start_server: StartServer, tmp_path: Path) -> None:
    locked = start_server(backend="fake", model=script_of(tmp_path), env={"WHISPERD_API_KEY": "long enough"})
    result = whisperd("status", "--port", port_of(locked))
    assert result.returncode == 0
    assert ": ready" in result.stdout
    assert "WHISPERD_API_KEY" in result.stdout
    shown = whisperd("status", "--port", port_of(locked), env={"WHISPERD_API_KEY": "long enough"}).stdout
    assert "Nothing is queued." in shown


def test_on_a_terminal_it_is_drawn_again_until_ctrl_c(busy: Server) -> None:
    terminal = Terminal("status", "--port", port_of(busy))
    terminal.read_until(b"\033[H", times=3)
    assert terminal.end_with(b"\x03") == 0
    shown = terminal.shown
    assert b"\033[?1049h" in shown
    screen, _, rest = shown.rpartition(b"\033[?25h\033[?1049l")
    assert b"running" in screen
    assert b"running" in rest, "what was seen last stays"
    assert b"\033" not in rest
