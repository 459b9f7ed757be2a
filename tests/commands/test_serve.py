"""What ``whisperd serve`` refuses to start with, HTTPS, and a system that lets few files be open."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from app.catalog import MICRO_FOLDER
from app.commands.serve import room
from tests.conftest import StartServer, clips, script_of, wait_for

CLIP = clips("en000")[0]


def serve(folder: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """A start that fails."""
    given = {name: value for name, value in os.environ.items() if not name.startswith("WHISPERD_")}
    given |= {"WHISPERD_CONFIG": str(folder / "config.toml"), **env}
    script = script_of(folder)
    command = [sys.executable, "-m", "app", "serve", "--backend", "fake", "--model", str(script), "--port", "0", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=given)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "macmini.local"])
def test_without_a_key_it_listens_on_this_machine_alone(tmp_path: Path, host: str) -> None:
    done = serve(tmp_path, "--host", host)
    assert done.returncode == 1
    assert "whisperd keys add NAME" in done.stderr
    assert "--no-auth" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_configuration_that_is_a_folder_is_a_sentence(tmp_path: Path) -> None:
    done = serve(tmp_path, WHISPERD_CONFIG=str(tmp_path))
    assert (done.returncode, "is a folder" in done.stderr) == (1, True)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for localhost, signed by itself, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not here")
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "cert.pem", folder / "key.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run([*command, "-out", certificate, "-keyout", key], check=True, capture_output=True, timeout=60)
    return certificate, key


def test_https_is_served_with_a_certificate_and_the_command_line_trusts_it(
    start_server: StartServer, certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    flags = {"tls_cert": certificate[0], "tls_key": certificate[1]}
    script = script_of(tmp_path, text="heard over TLS")
    server = start_server(backend="fake", model=script, ready=False, **flags)
    port = server.url.rpartition(":")[2]
    trusted = ssl.create_default_context(cafile=certificate[0])
    url = f"https://localhost:{port}"
    wait_for(lambda: httpx.get(f"{url}/ready", verify=trusted).is_success, 30, server.log)
    with CLIP.path.open("rb") as file:
        assert httpx.post(f"{url}/v1/audio/transcriptions", files={"file": file}, verify=trusted).is_success
    assert f"https://127.0.0.1:{port}/v1" in server.log.read_text()
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://localhost:{port}/health")
    words = ["transcribe", str(CLIP.path), "--port", port, "--tls-cert", str(certificate[0])]
    env = {**os.environ, "WHISPERD_CONFIG": str(tmp_path / "none.toml")}
    done = subprocess.run([sys.executable, "-m", "app", *words], capture_output=True, text=True, timeout=60, env=env)
    assert done.returncode == 0, done.stderr
    server.stop()


def test_a_certificate_that_cannot_be_used_is_a_sentence(certificate: tuple[Path, Path], tmp_path: Path) -> None:
    cert, key = map(str, certificate)
    locked, other = tmp_path / "locked.pem", tmp_path / "other.pem"
    subprocess.run(
        ["openssl", "genrsa", "-aes128", "-passout", "pass:secret", "-out", locked], check=True, capture_output=True
    )
    subprocess.run(["openssl", "genrsa", "-out", other], check=True, capture_output=True)
    (tmp_path / "text").write_text("no certificate")
    for words in (
        ("--tls-cert", str(tmp_path / "missing.pem")),
        ("--tls-cert", str(tmp_path / "text")),
        ("--tls-cert", cert),
        ("--tls-cert", cert, "--tls-key", str(other)),
        ("--tls-cert", cert, "--tls-key", str(locked)),
        ("--tls-key", key),
    ):
        done = serve(tmp_path, *words)
        assert done.returncode == 1, words
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
        assert done.stderr.startswith("whisperd: ")


@pytest.mark.parametrize(("soft", "hard", "connections"), [(64, 64, 16), (64, 4096, 1024), (64, 1000, 250)])
def test_a_quarter_of_the_files_may_be_connections(soft: int, hard: int, connections: int) -> None:
    program = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))"
    program += "; from app.commands.serve import room; print(room(1024))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stdout) == connections


def test_a_limit_that_is_enough_stays_as_it_is() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert room(8) == 8
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before


def test_more_connections_than_files_are_no_trouble(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = ["serve", "--backend", "fake", "--model", "{}", "--port", str(port), "--state-dir", str(tmp_path)]
    few = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))"
    program = f"{few}; from app.cli import main; raise SystemExit(main())"
    environment = {**os.environ, "WHISPERD_CONFIG": str(tmp_path / "none.toml")}
    log, url = tmp_path / "log", f"http://127.0.0.1:{port}"
    with log.open("wb") as stderr, contextlib.ExitStack() as stack:
        process = subprocess.Popen([sys.executable, "-c", program, *words], stderr=stderr, env=environment)
        stack.callback(process.wait, 30)
        stack.callback(process.terminate)
        wait_for(lambda: httpx.get(f"{url}/ready").is_success, 60, log)
        for _ in range(200):
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        with clips("en000")[0].path.open("rb") as file:
            assert httpx.post(f"{url}/v1/audio/transcriptions", files={"file": file}, timeout=30).status_code == 200
        assert httpx.get(f"{url}/health", timeout=30).status_code == 200
    assert process.returncode == 0
    assert "Traceback" not in log.read_text()
    assert "connections=16" in log.read_text()


def test_the_log_goes_to_a_file_where_that_is_asked_for(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(backend="fake", model="{}", log_file=tmp_path / "whisperd.log")
    assert server.stop() == 0
    assert "whisperd starts" in (tmp_path / "whisperd.log").read_text()
    assert server.log.read_text() == ""


def test_a_log_that_cannot_be_written_stops_the_start_with_a_sentence(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "app", "serve", "--backend", "fake", "--model", "{}", "--log-file", str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr == f"whisperd: The log cannot be written to {tmp_path} (Is a directory); see --log-file.\n"


def test_a_server_that_is_told_relative_folders_transcribes(start_server: StartServer, tmp_path: Path) -> None:
    here = Path(os.path.relpath(tmp_path))
    assert str(here).startswith("../")
    shutil.copytree(MICRO_FOLDER, tmp_path / "micro")
    folders = {"state_dir": here / "state", "cache_dir": here / "cache"}
    server = start_server(backend="faster-whisper", model=here / "micro", **folders)
    assert server.transcribe(clips("en000")[0].path).status_code == 200
    assert server.stop() == 0
