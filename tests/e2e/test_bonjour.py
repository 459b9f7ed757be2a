"""A real server on a network of its own (a namespace of Linux), and a neighbour there that knows nothing of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from app import __version__
from tests.conftest import free_port, script_of

ROOT = Path(__file__).parents[2]
ADDRESS = "10.77.0.1"
#: The loopback interface alone, which carries no multicast of IPv6.
_NETWORK = f"""
ip link set lo up multicast on
ip address add {ADDRESS}/24 dev lo
ip route add 224.0.0.0/4 dev lo
exec "$@"
"""


def in_network(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["unshare", "--net", "--map-root-user", "sh", "-c", _NETWORK, "sh", *words],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=180,
    )


@pytest.fixture(scope="module", autouse=True)
def network() -> None:
    if not shutil.which("ip") or not shutil.which("unshare") or in_network("true").returncode:
        pytest.skip("no network of one's own can be had here")


def test_a_neighbour_finds_the_server_and_sees_it_go(tmp_path: Path) -> None:
    port, wyoming = free_port(), free_port()
    done = in_network(
        sys.executable, "-m", "tests.e2e.neighbour",
        "--host", "0.0.0.0", "--port", str(port), "--wyoming-host", "0.0.0.0", "--wyoming-port", str(wyoming),
        "--no-auth",
        "--backend", "fake", "--model", str(script_of(tmp_path)), "--state-dir", str(tmp_path / "state"),
        WHISPERD_CONFIG=str(tmp_path / "none.toml"), WHISPERD_KEYS_FILE=str(tmp_path / "keys.json"),
        WHISPERD_BONJOUR="true",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    http, spoken = found["seen"]["_http._tcp.local."], found["seen"]["_wyoming._tcp.local."]
    assert (http["port"], spoken["port"]) == (port, wyoming)
    assert http["text"]["whisperd"] == __version__
    assert http["text"]["auth"] == "none"
    assert http["text"]["model"] == "script.json"
    assert str(tmp_path) not in done.stdout
    assert http["addresses"] == [ADDRESS]
    assert found["health"] == {ADDRESS: f"whisperd/{__version__}"}, "it answers where it says"
    assert found["gone"] == ["_http._tcp.local.", "_wyoming._tcp.local."], "it has said goodbye"
    assert found["code"] == 0
