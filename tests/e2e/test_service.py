"""``whisperd service`` as people type it, with stand-ins for launchctl and systemctl that really run the server."""

from __future__ import annotations

import json
import os
import plistlib
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import pytest

from tests.conftest import clips, wait_for
from tests.service.conftest import Machine, machine_with  # noqa: F401 - a fixture

CLIP = clips("en000")[0]


@pytest.fixture(params=["launchctl", "systemctl"])
def machine(request: pytest.FixtureRequest, machine_with: Callable[[str], Machine]) -> Machine:  # noqa: F811
    return machine_with(request.param)


@pytest.fixture
def mac(machine_with: Callable[[str], Machine]) -> Machine:  # noqa: F811
    return machine_with("launchctl")


def text_of(machine: Machine) -> str:
    with CLIP.path.open("rb") as file:
        return httpx.post(f"{machine.url}/v1/audio/transcriptions", files={"file": file}, timeout=60).json()["text"]


def log_of(machine: Machine) -> Path:
    return machine.folder / "calls"


def test_a_life_from_install_to_uninstall(machine: Machine) -> None:
    assert machine.service("status").returncode == 3
    assert "not installed" in machine.service("start").stderr

    done = machine.install()
    assert done.returncode == 0, done.stderr
    assert "ready" in done.stderr
    assert machine.url in done.stderr
    assert "gentleman" in text_of(machine), "what was installed transcribes"
    first = machine.job["pid"]

    again = machine.service("install")
    assert again.returncode == 0
    assert "Installed already" in again.stderr
    assert machine.job["pid"] == first, "nothing was disturbed"
    assert "already" in machine.service("start").stderr

    status = machine.service("status", "--json")
    assert status.returncode == 0
    shown = json.loads(status.stdout)
    assert (shown["running"], shown["pid"], shown["url"]) == (True, first, machine.url)
    assert "ready" in shown["server"]
    assert f"process {first}" in machine.service("status").stdout

    assert machine.service("restart").returncode == 0
    assert machine.job["pid"] != first
    second = machine.job["pid"]
    assert machine.service("stop").returncode == 0
    assert not psutil.pid_exists(second), "it has ended, not only been told to"
    assert machine.service("stop").returncode == 0
    stopped = machine.service("status")
    assert stopped.returncode == 3
    assert "not loaded" in stopped.stdout or "inactive" in stopped.stdout
    assert machine.service("start").returncode == 0
    assert "gentleman" in text_of(machine)

    assert machine.service("uninstall").returncode == 0
    assert not machine.job
    assert machine.service("status").returncode == 3
    assert machine.service("uninstall").returncode == 0, "twice is once"
    assert not (machine.folder / "killed").exists(), "SIGTERM was always enough"


def test_it_starts_with_nothing_of_the_callers_environment(machine: Machine) -> None:
    done = machine.service("install", "--port", str(machine.port), "--model", "micro", WHISPERD_MODEL="large-v3")
    assert done.returncode == 0, done.stderr
    assert "WHISPERD_MODEL is set here" in done.stderr
    process = psutil.Process(machine.job["pid"])
    assert not {name for name in process.environ() if name.startswith(("WHISPERD_", "PYTHON"))}
    assert Path(process.cwd()).name == "empty"
    assert stat.S_IMODE(Path(process.cwd()).stat().st_mode) == 0o700
    assert list(Path(process.cwd()).iterdir()) == []
    assert stat.S_IMODE(Path(process.cwd()).parent.stat().st_mode) == 0o700


def test_other_flags_replace_those_before_and_no_flags_keep_them(mac: Machine) -> None:
    assert mac.install_fake("--log-level", "debug").returncode == 0
    assert "--log-level=debug" in mac.service("status").stdout
    first = mac.job["pid"]
    assert mac.install_fake().returncode == 0
    assert mac.job["pid"] != first, "it runs with the new ones"
    assert "log-level" not in mac.service("status").stdout
    second = mac.job["pid"]
    assert mac.service("install").returncode == 0
    assert mac.job["pid"] == second


def test_an_upgrade_from_the_agent_that_was_made_by_hand(mac: Machine) -> None:
    """As version 0.1 had people write it: another program, no --supervised, other paths."""
    agents = mac.home / "Library" / "LaunchAgents"
    agents.mkdir(parents=True)
    old = {"Label": "io.whisperd", "ProgramArguments": ["/old/.venv/bin/whisperd", "serve"], "RunAtLoad": True}
    (agents / "io.whisperd.plist").write_bytes(plistlib.dumps(old))
    done = mac.install()
    assert done.returncode == 0, done.stderr
    assert "gentleman" in text_of(mac)
    assert [path.name for path in agents.iterdir()] == ["io.whisperd.plist"], "no draft is left"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--host", "0.0.0.0"], "whisperd keys add"),
        (["--model", "large-v3"], "models pull large-v3"),
        (["--queue-jobs", "many"], "queue_jobs"),
        (["--port", "0"], "port that stays"),
        (["--tls-key", "key.pem"], "certificate is missing"),
    ],
)
def test_what_would_not_start_is_not_installed(mac: Machine, words: list[str], said: str) -> None:
    done = mac.install(*words)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert mac.service("status").returncode == 3
    assert not (mac.home / "Library" / "LaunchAgents").exists()


def test_a_bad_change_leaves_the_service_that_runs_alone(mac: Machine) -> None:
    assert mac.install_fake().returncode == 0
    first = mac.job["pid"]
    assert mac.install_fake("--host", "0.0.0.0").returncode == 1
    assert mac.job["pid"] == first
    assert text_of(mac)


def test_a_port_that_is_taken_is_said_before(mac: Machine, server) -> None:
    port = server.url.rpartition(":")[2]
    done = mac.service("install", "--port", port, "--model", "micro")
    assert done.returncode == 1
    assert "is not the service" in done.stderr


def test_keys_are_not_for_the_plist_and_the_configuration_file_is_read(mac: Machine) -> None:
    config = mac.home / "mine.toml"
    config.write_text(f'model = "micro"\nport = {mac.port}\napi_key = "secret-secret"\n')
    done = mac.service("install", WHISPERD_CONFIG=str(config), WHISPERD_API_KEY="other-secret")
    assert done.returncode == 0, done.stderr
    assert "WHISPERD_API_KEY is set here" in done.stderr
    plist = (mac.home / "Library" / "LaunchAgents" / "io.whisperd.plist").read_text()
    assert "secret" not in plist
    assert "secret" not in done.stderr
    assert httpx.get(f"{mac.url}/v1/models").status_code == 401
    assert httpx.get(f"{mac.url}/v1/models", headers={"Authorization": "Bearer secret-secret"}).is_success


def test_what_dies_is_started_again(machine: Machine) -> None:
    assert machine.install_fake().returncode == 0
    os.kill(machine.job["pid"], signal.SIGKILL)
    wait_for(lambda: machine.job.get("runs") == 2, 30, log_of(machine))
    wait_for(lambda: httpx.get(f"{machine.url}/ready").is_success, 60, log_of(machine))
    assert machine.service("status").returncode == 0


def test_what_can_start_no_more_is_parked_and_says_why(machine: Machine) -> None:
    """The configuration was right when the service was installed."""
    config = machine.home / "mine.toml"
    config.write_text("")
    environment = {"WHISPERD_CONFIG": str(config)}
    assert machine.install_fake(**environment).returncode == 0
    config.write_text('queue_jobs = "many"\n')
    first = machine.job["pid"]
    done = machine.service("restart", **environment)
    assert done.returncode == 1
    assert "queue_jobs" in done.stderr
    assert machine.job["pid"] == first, "who asks for what cannot start keeps what runs"

    os.kill(first, signal.SIGKILL)
    wait_for(lambda: machine.job.get("state") == "not running", 60, log_of(machine))
    assert machine.job["runs"] == 1 + 5, "and no more"
    status = machine.service("status", **environment)
    assert status.returncode == 3
    assert "queue_jobs" in status.stdout
    assert machine.service("stop", **environment).returncode == 0
    config.write_text("")
    done = machine.service("start", **environment)
    assert done.returncode == 0, done.stderr
    assert "queue_jobs" not in machine.service("status", **environment).stdout


def test_a_request_in_work_is_answered_before_it_stops(mac: Machine) -> None:
    assert mac.install_fake("--drain-s", "20").returncode == 0
    with CLIP.path.open("rb") as file:
        command = ["curl", "-s", f"{mac.url}/v1/audio/transcriptions", "-F", "file=@-;filename=a.flac"]
        with subprocess.Popen(command, stdin=file, stdout=subprocess.PIPE, text=True) as upload:
            wait_for(lambda: httpx.get(f"{mac.url}/v1/queue").json()["data"], 30, log_of(mac))
            assert mac.service("stop").returncode == 0
            answer, _ = upload.communicate(timeout=30)
    assert "text" in json.loads(answer), answer


def test_a_mac_without_a_login_at_the_screen(mac: Machine) -> None:
    (mac.folder / "headless").touch()
    assert mac.install_fake().returncode == 0
    assert mac.job["label"].startswith("user/")
    assert mac.service("status").returncode == 0
    (mac.folder / "headless").unlink()
    assert mac.install_fake().returncode == 0, "somebody has logged in"
    assert mac.job["label"].startswith("gui/")
    assert mac.service("uninstall").returncode == 0
    assert not mac.job


def test_its_log_is_shown(machine: Machine) -> None:
    assert "not installed" in machine.service("logs").stderr
    assert machine.install_fake().returncode == 0
    journal = Path(machine.path.split(os.pathsep)[0]) / "journalctl"
    journal.write_text('#!/bin/sh\necho "$@"\n')
    journal.chmod(0o755)
    done = machine.service("logs", "--lines", "7")
    assert done.returncode == 0
    if "launchctl" in (call[0] for call in machine.calls):
        assert "whisperd starts" in done.stdout
        assert len(done.stdout.splitlines()) <= 7
        follow = [sys.executable, "-m", "app", "service", "logs", "-f"]
        with subprocess.Popen(follow, env=machine.environment, stdout=subprocess.PIPE, text=True) as shown:
            assert shown.stdout is not None
            assert "whisperd starts" in next(line for line in shown.stdout if "starts" in line)
            httpx.post(f"{machine.url}/v1/audio/transcriptions", files={"file": b"nonsense"})
            assert next(line for line in shown.stdout if "request" in line)
            for child in psutil.Process(shown.pid).children():
                child.terminate()
            shown.send_signal(signal.SIGINT)
    else:
        assert done.stdout.split() == ["--user", "--unit", "whisperd.service", "--lines", "7"]


def test_a_log_file_of_the_settings_is_shown(machine: Machine, tmp_path: Path) -> None:
    log = tmp_path / "elsewhere" / "whisperd.log"
    log.parent.mkdir()
    assert machine.install_fake("--log-file", str(log)).returncode == 0
    assert str(log) in machine.service("status").stdout
    assert machine.service("logs", "-n", "9").stdout.splitlines() == log.read_text().splitlines()[-9:]


def test_a_supervisor_that_refuses_is_quoted(mac: Machine) -> None:
    program = Path(mac.path.split(os.pathsep)[0]) / "launchctl"
    kept = program.read_text()
    program.write_text(
        kept.replace("exec", '[ "$1" != bootstrap ] || { echo "Bootstrap failed: 78" >&2; exit 78; }\nexec')
    )
    done = mac.install_fake()
    assert done.returncode == 1
    assert "Bootstrap failed: 78" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_machine_without_a_supervisor(machine: Machine, tmp_path: Path) -> None:
    done = machine.service("status", PATH=str(tmp_path))
    assert done.returncode == 1
    assert "whisperd serve" in done.stderr


def test_the_home_of_another_is_left_alone(mac: Machine) -> None:
    if os.getuid():
        pytest.skip("only root can give a folder away")
    os.chown(mac.home, 12345, 12345)
    done = mac.install_fake()
    assert done.returncode == 1
    assert "without sudo" in done.stderr
