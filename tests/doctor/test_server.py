from __future__ import annotations

import socket
from pathlib import Path

import pytest

from app.doctor import server as doctor
from app.doctor.check import Check, Status
from app.doctor.server import check_server
from app.settings import load_settings
from tests.conftest import Server, StartServer

LAUNCHD_RUNS = """\
gui/501/io.whisperd = {
	active count = 1
	path = /Users/ada/Library/LaunchAgents/io.whisperd.plist
	state = running

	program = /Users/ada/whisperd/.venv/bin/whisperd
	runs = 1
	pid = 4711
}
"""


def found(**fields: object) -> dict[str, Check]:
    return {check.name: check for check in check_server(load_settings(**fields))}


@pytest.fixture
def taken() -> object:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_a_port_that_another_program_holds_fails(taken: int) -> None:
    check = found(port=taken)["port"]
    assert check.status is Status.FAILED
    assert "no whisperd answers" in check.found
    assert "--port" in check.remedy


def test_a_port_that_whisperd_holds_is_well_and_says_how_it_is(
    server: Server, start_server: StartServer, tmp_path: Path
) -> None:
    check = found(port=int(server.url.rsplit(":", 1)[1]))["port"]
    assert check.status is Status.OK
    assert check.found.endswith("runs and is ready.")
    (tmp_path / "script.json").write_text('{"load": "unavailable"}')
    broken = start_server(ready=False, backend="fake", model=tmp_path / "script.json")
    check = found(port=int(broken.url.rsplit(":", 1)[1]))["port"]
    assert check.status is Status.OK
    assert "is not ready: The model" in check.found


def test_a_free_port_is_well(taken: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert "is free" in found(port=port)["port"].found


@pytest.mark.parametrize(
    ("fields", "status", "word"),
    [
        ({}, "ok", "this machine only"),
        ({"api_key": "secret-secret"}, "ok", "A key is set. 127.0.0.1"),
        ({"host": "0.0.0.0"}, "failed", "will not start"),
        ({"host": "0.0.0.0", "no_auth": True}, "ok", "by everybody"),
        ({"host": "0.0.0.0", "api_key": "secret-secret"}, "ok", "from the network."),
    ],
)
def test_a_server_on_the_network_wants_a_key(fields: dict[str, object], status: str, word: str) -> None:
    check = found(port=0, **fields)["key"]
    assert check.status == status
    assert word in check.found
    assert "secret" not in check.found


@pytest.mark.parametrize(
    ("said", "status", "word"),
    [
        (LAUNCHD_RUNS, "ok", "running"),
        (LAUNCHD_RUNS.replace("state = running", "state = spawn scheduled"), "failed", "spawn scheduled"),
        ("", "skipped", "Not installed"),
    ],
)
def test_the_agent_of_launchd(said: str, status: str, word: str) -> None:
    check = doctor._launchd(said)
    assert check.status == status
    assert word in check.found


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ("LoadState=loaded\nActiveState=active\n", "ok"),
        ("LoadState=loaded\nActiveState=failed\n", "failed"),
        ("LoadState=not-found\nActiveState=inactive\n", "skipped"),
        ("", "skipped"),
    ],
)
def test_the_unit_of_systemd(said: str, status: str) -> None:
    assert doctor._systemd(said).status == status


def test_the_system_is_asked_by_its_own_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "launchctl"
    program.write_text(f'#!/bin/sh\n[ "$1" = print ] && cat <<E\n{LAUNCHD_RUNS}E\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert found(port=0)["service"].status is Status.OK
    program.write_text("#!/bin/sh\nexit 113\n")
    assert found(port=0)["service"].status is Status.SKIPPED
