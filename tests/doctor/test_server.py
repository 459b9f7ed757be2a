from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from app.doctor import server as doctor
from app.doctor.check import Check, Status
from app.doctor.server import check_server
from app.settings import Settings, load_settings
from tests.commands.test_cli import port_of
from tests.conftest import Server, StartServer, script_of, wait_for
from tests.service.test_launchd import RUNS


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
    check = found(port=port_of(server))["port"]
    assert check.status is Status.OK
    assert check.found.endswith("runs and is ready.")
    (tmp_path / "script.json").write_text('{"load": "unavailable"}')
    broken = start_server(ready=False, backend="fake", model=tmp_path / "script.json")
    check = found(port=port_of(broken))["port"]
    assert check.status is Status.OK
    assert "is not ready: The model" in check.found


def another_address() -> str:
    """An address of this machine that is no loopback; no packet leaves for it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no network of any kind")
        return probe.getsockname()[0]


@contextlib.contextmanager
def listening(host: str, folder: Path) -> Iterator[Settings]:
    """A whisperd that listens on ``host``; its settings."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.create_server((host, 0), family=family) as probe:
            port = probe.getsockname()[1]
    except OSError:
        pytest.skip(f"this machine has no {host}")
    settings = load_settings(host=host, port=port, no_auth=True)
    flags = ["--backend", "fake", "--model", script_of(folder), "--state-dir", folder / "state", "--no-auth"]
    words = [sys.executable, "-m", "app", "serve", "--host", host, "--port", port, *flags]
    with (folder / "log").open("wb") as log, subprocess.Popen([*map(str, words)], stderr=log) as process:
        try:
            wait_for(lambda: httpx.get(f"{settings.url}/ready").is_success, 60, folder / "log")
            yield settings
        finally:
            process.kill()


@pytest.mark.parametrize("host", ["::", "0.0.0.0", "localhost", "another"])
def test_a_whisperd_is_found_on_every_address_that_it_may_listen_on(host: str, tmp_path: Path) -> None:
    with listening(another_address() if host == "another" else host, tmp_path) as settings:
        check = next(check for check in check_server(settings) if check.name == "port")
    assert (check.status, check.found.endswith("runs and is ready.")) == (Status.OK, True), check.found


def test_a_proxy_is_not_asked_for_this_machine(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert found(port=port_of(server))["port"].status is Status.OK


def test_a_host_that_is_not_this_machine_fails_by_its_host() -> None:
    check = found(host="192.0.2.77", port=0, no_auth=True)["port"]
    assert check.status is Status.FAILED
    assert "--host" in check.remedy


def test_a_port_that_is_not_for_users_fails_by_its_port(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> OSError:
        return PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor, "_cannot_listen", refused)
    check = found(port=80)["port"]
    assert (check.status, check.remedy) == (Status.FAILED, "Choose a port above 1023: --port.")


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


@pytest.fixture
def supervised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Check]:
    """The check where ``program`` says ``said``, or nothing with an error."""

    def check(program: str, said: str) -> Check:
        stand_in = tmp_path / program
        stand_in.write_text(f"#!/bin/sh\ncat <<E\n{said}E\n" if said else "#!/bin/sh\nexit 113\n")
        stand_in.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
        monkeypatch.setenv("HOME", str(tmp_path))
        return found(port=0)["service"]

    return check


@pytest.mark.parametrize(
    ("said", "status", "word"),
    [
        (RUNS, "ok", "running"),
        (RUNS.replace("state = running", "state = spawn scheduled"), "failed", "spawn scheduled"),
        ("", "skipped", "whisperd service install"),
    ],
)
def test_the_agent_of_launchd(supervised: Callable[[str, str], Check], said: str, status: str, word: str) -> None:
    check = supervised("launchctl", said)
    assert check.status == status
    assert word in check.found + check.remedy


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ("LoadState=loaded\nActiveState=active\n", "ok"),
        ("LoadState=loaded\nActiveState=failed\n", "failed"),
        ("LoadState=not-found\nActiveState=inactive\n", "skipped"),
        ("", "skipped"),
    ],
)
def test_the_unit_of_systemd(supervised: Callable[[str, str], Check], said: str, status: str) -> None:
    assert supervised("systemctl", said).status == status
