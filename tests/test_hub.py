"""Downloads as people start them: ``whisperd models`` in a process of its own, the hub a stand-in that can fail."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from app import convert
from app.catalog import MICRO_FOLDER, Catalog
from tests.conftest import wait_for
from tests.hub import REVISION, Hub, checksum
from tests.test_catalog import CHECKPOINT, CTRANSLATE2, GGML

REPO = "Systran/faster-whisper-base"
WEIGHTS = CTRANSLATE2["model.bin"] + bytes(range(256)) * 400
MODEL = CTRANSLATE2 | {"model.bin": WEIGHTS, "tokenizer.json": b"{}"}


class Machine:
    """A machine with nothing on it: its folders, and ``whisperd models`` with them."""

    def __init__(self, folder: Path, endpoint: str) -> None:
        self.hub_dir, self.cache_dir = folder / "hub", folder / "cache"
        self.repository = self.hub_dir / f"models--{REPO.replace('/', '--')}"
        base = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "WHISPERD_"))}
        self.environ = base | {
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(folder / "home"),
            "NO_PROXY": "*",
            "WHISPERD_CONFIG": str(folder / "config.toml"),
            "WHISPERD_HUB_DIR": str(self.hub_dir),
            "WHISPERD_CACHE_DIR": str(self.cache_dir),
            "WHISPERD_BACKEND": "faster-whisper",
        }

    def command(self, *words: str, start: str = "") -> list[str]:
        """``start`` is Python that runs before."""
        run = f"{start}\nimport runpy; runpy.run_module('app', run_name='__main__', alter_sys=True)"
        return [sys.executable, "-c", run, "models", *words]

    def models(
        self, *words: str, env: dict[str, str] | None = None, start: str = ""
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.command(*words, start=start),
            env=self.environ | (env or {}),
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert "Traceback" not in done.stderr
        return done

    def fails(self, *words: str, env: dict[str, str] | None = None, start: str = "") -> str:
        """The sentence that the command ends with."""
        done = self.models(*words, env=env, start=start)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.count("\n") == 1
        return done.stderr.removeprefix("whisperd: ").strip()

    def has(self, name: str = "base", backend: str = "faster-whisper") -> bool:
        return Catalog(backend, self.hub_dir, "tiny").has(name)

    def partial_size(self) -> int:
        """Bytes of what is not whole yet; -1 where there is none."""
        return next((path.stat().st_size for path in self.repository.glob("blobs/*.incomplete")), -1)


@pytest.fixture
def server(hub: tuple[str, type[Hub]]) -> type[Hub]:
    hub[1].repositories[REPO] = MODEL
    return hub[1]


@pytest.fixture
def machine(tmp_path: Path, hub: tuple[str, type[Hub]], server: type[Hub]) -> Machine:
    return Machine(tmp_path, hub[0])


def begins(server: type[Hub], name: str = "model.bin") -> list[int]:
    """The first byte of each request for a file."""
    return [begin for method, file, begin in server.seen if (method, file) == ("GET", name)]


def test_a_pulled_model_lies_as_other_programs_expect_it(machine: Machine, server: type[Hub]) -> None:
    path = Path(machine.models("pull", "base").stdout.strip())
    assert path == machine.repository / "snapshots" / REVISION
    assert {file.name: file.read_bytes() for file in path.iterdir()} == MODEL
    assert {file.name for file in (machine.repository / "blobs").iterdir()} == {checksum(c) for c in MODEL.values()}
    script = "import sys, huggingface_hub as h; print(h.snapshot_download(sys.argv[1], cache_dir=sys.argv[2]))"
    command = [sys.executable, "-c", script, REPO, str(machine.hub_dir)]
    env = machine.environ | {"HF_HUB_OFFLINE": "1"}
    assert subprocess.run(command, env=env, capture_output=True, text=True).stdout.strip() == str(path)


def test_a_line_that_breaks_several_times_is_taken_up_where_it_broke(machine: Machine, server: type[Hub]) -> None:
    server.cuts = 3
    assert machine.models("pull", "base").returncode == 0
    assert begins(server) == [0, len(WEIGHTS) // 2, len(WEIGHTS) // 2, len(WEIGHTS) // 2]
    assert machine.models("verify", "base").returncode == 0


def test_a_line_that_stays_broken_is_a_sentence_and_the_next_pull_goes_on(machine: Machine, server: type[Hub]) -> None:
    server.cuts = 100
    assert machine.fails("pull", "base") == (
        f"The download of {REPO} broke off (RemoteProtocolError); pull it again, it goes on where it stopped."
    )
    assert not machine.has()
    assert f"A download of {REPO} broke off; pull it again, or remove it." in machine.models("verify").stdout
    server.cuts, server.seen[:] = 0, []
    assert machine.models("pull", "base").returncode == 0
    assert begins(server) == [len(WEIGHTS) // 2]
    assert machine.has()
    assert machine.partial_size() == -1


def test_a_pull_that_was_killed_leaves_no_model_and_the_next_one_goes_on(machine: Machine, server: type[Hub]) -> None:
    server.silent_after = 40_000
    with subprocess.Popen(machine.command("pull", "base"), env=machine.environ, stderr=subprocess.DEVNULL) as process:
        wait_for(lambda: begins(server) == [0], 60)
        # What was written is in the kernel once the size shows.
        wait_for(lambda: machine.partial_size() > 0, 60)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not machine.has()
    size = machine.partial_size()
    server.silent_after = None
    assert machine.models("pull", "base").returncode == 0
    assert begins(server) == [0, size]
    assert machine.has()


def test_a_hub_that_falls_silent_is_given_up_and_the_next_pull_goes_on(machine: Machine, server: type[Hub]) -> None:
    server.silent_after = 0
    said = machine.fails("pull", "base", env={"HF_HUB_DOWNLOAD_TIMEOUT": "1"})
    assert said == f"The download of {REPO} broke off (ReadTimeout); pull it again, it goes on where it stopped."
    assert not machine.has()


def test_a_hub_that_cannot_go_on_begins_anew(machine: Machine, server: type[Hub]) -> None:
    server.cuts, server.whole = 1, True
    assert machine.models("pull", "base").returncode == 0
    assert machine.models("verify", "base").returncode == 0


def test_a_wrong_checksum_is_fetched_once_more(machine: Machine, server: type[Hub]) -> None:
    server.damaged = 1
    assert machine.models("pull", "base").returncode == 0
    assert begins(server) == [0, 0]
    assert machine.has()


def test_a_checksum_that_stays_wrong_is_a_sentence_and_nothing_of_the_file_is_kept(
    machine: Machine, server: type[Hub]
) -> None:
    server.damaged = 2
    assert machine.fails("pull", "base") == (
        f"The file model.bin of {REPO} came twice with a wrong checksum, so nothing of it was kept. "
        "Pull it again later, or from another mirror (HF_ENDPOINT)."
    )
    assert not machine.has()
    assert machine.partial_size() == -1
    assert not (machine.repository / "blobs" / checksum(WEIGHTS)).exists()


def test_a_disk_that_fills_up_is_a_sentence_and_the_next_pull_goes_on(machine: Machine, server: type[Hub]) -> None:
    limit = 50_000
    full = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))"
    said = machine.fails("pull", "base", start=full)
    assert said == f"The disk is full: {REPO} was not downloaded. Make room and pull it again."
    assert not machine.has()
    size = machine.partial_size()
    assert 0 < size <= limit
    assert machine.models("pull", "base").returncode == 0
    assert begins(server) == [0, size]


def test_a_model_that_does_not_fit_is_refused_before_a_byte_is_fetched(machine: Machine, server: type[Hub]) -> None:
    server.sizes["model.bin"] = 10**18
    said = machine.fails("pull", "base")
    assert said.startswith(f"The disk is too full: {REPO} takes 1,000,000,000,000 MB more and ")
    assert server.seen == []
    assert not machine.has()


def test_what_is_here_already_needs_no_room(machine: Machine, server: type[Hub]) -> None:
    server.cuts = 100
    machine.fails("pull", "base")
    server.cuts = 0
    room = len(WEIGHTS) * 3 // 4
    nearly_full = f"import shutil; shutil.disk_usage = lambda _: shutil._ntuple_diskusage(0, 0, {room})"
    assert machine.models("pull", "base", start=nearly_full).returncode == 0
    machine.models("remove", "base")
    assert "The disk is too full" in machine.fails("pull", "base", start=nearly_full)


def test_a_hub_that_fails_is_a_sentence(machine: Machine, server: type[Hub]) -> None:
    server.status = 503
    assert machine.fails("pull", "base").endswith(f"answered 503, so {REPO} was not downloaded; try it later.")
    assert not machine.has()


def test_a_mirror_that_says_checksums_of_each_file_alone_will_do(machine: Machine, server: type[Hub]) -> None:
    server.terse, server.damaged = True, 1
    assert machine.models("pull", "base").returncode == 0
    assert begins(server) == [0, 0]
    assert machine.has()


def test_a_file_on_another_host_is_fetched_without_the_token(machine: Machine, server: type[Hub]) -> None:
    server.elsewhere, server.cuts = True, 1
    assert machine.models("pull", "base", env={"HF_TOKEN": "hf_secret"}).returncode == 0
    assert begins(server) == [0, len(WEIGHTS) // 2]
    host = machine.environ["HF_ENDPOINT"].removeprefix("http://")
    assert server.tokens == {(host, "Bearer hf_secret")}


def test_a_hub_cannot_write_outside_its_repository(machine: Machine, server: type[Hub]) -> None:
    server.repositories[REPO] = MODEL | {"vocabulary.x/../../../../../evil": b"x", "vocabulary.d/file": b"x"}
    assert machine.models("pull", "base").returncode == 0
    assert {name for _, name, _ in server.seen} == set(MODEL)
    assert not list(machine.hub_dir.parent.rglob("evil"))


def test_two_pulls_at_once_fetch_each_file_once(machine: Machine, server: type[Hub]) -> None:
    server.silent_after = 10
    first = subprocess.Popen(machine.command("pull", "base"), env=machine.environ, stdout=subprocess.PIPE)
    wait_for(lambda: begins(server) == [0], 60)
    second = subprocess.Popen(machine.command("pull", "base"), env=machine.environ, stdout=subprocess.PIPE)
    assert machine.fails("remove", "base") == f"{REPO} is being downloaded right now; remove it when that is over."
    server.silent_after = None
    server.release.set()
    assert first.communicate(timeout=60) == second.communicate(timeout=60)
    assert (first.returncode, second.returncode) == (0, 0)
    assert begins(server, "config.json") == [0]
    assert begins(server) == [0, 10]


def test_damage_is_found_and_mended(machine: Machine, server: type[Hub]) -> None:
    machine.models("pull", "base")
    blob = machine.repository / "blobs" / checksum(WEIGHTS)
    blob.write_bytes(WEIGHTS[:-1] + b"!")
    (machine.repository / "blobs" / checksum(b"{}")).unlink()
    for words in (["verify"], ["verify", "base"], ["verify", REPO]):
        done = machine.models(*words)
        assert done.returncode == 1
        assert f"The file model.bin of {REPO} is damaged; pull the model again." in done.stdout.splitlines()
        assert f"The file tokenizer.json of {REPO} is missing; pull the model again." in done.stdout.splitlines()
    assert machine.models("pull", "base").returncode == 0
    done = machine.models("verify")
    assert (done.returncode, done.stdout) == (0, "Every downloaded file is as the hub has it.\n")


def test_a_damaged_small_file_that_cannot_be_fetched_again_leaves_no_model(machine: Machine, server: type[Hub]) -> None:
    small = b'{"small": 1}'
    server.repositories[REPO] = MODEL | {"tokenizer.json": small}
    machine.models("pull", "base")
    blob = machine.repository / "blobs" / checksum(small)
    blob.write_bytes(b"[]")
    (machine.repository / "snapshots" / ".DS_Store").write_bytes(b"")
    server.status = 503
    machine.fails("pull", "base")
    assert not blob.exists()
    assert not machine.has()
    server.status = 200
    assert machine.models("pull", "base").returncode == 0
    assert machine.has()


def test_verify_calls_nothing_well_that_it_did_not_check(machine: Machine) -> None:
    assert machine.models("verify").stdout == "Nothing is downloaded.\n"
    weights = Path(machine.models("pull", "base").stdout.strip()) / "model.bin"
    weights.unlink()  # as a copy without links holds it
    weights.write_bytes(WEIGHTS[:-1] + b"!")
    done = machine.models("verify", "base")
    said = f"The file model.bin of {REPO} has no checksum here, so only a pull can check it.\n"
    assert (done.returncode, done.stdout) == (0, said)


def test_verify_looks_at_whisper_models_alone(machine: Machine) -> None:
    other = machine.hub_dir / "models--someone--text" / "snapshots" / REVISION
    other.mkdir(parents=True)
    (other / "config.json").write_text('{"model_type": "bert"}')
    (other / "model.safetensors").symlink_to("../../blobs/" + "0" * 64)
    assert machine.models("verify").returncode == 0


def test_remove_takes_the_downloads_and_what_was_made_of_them(machine: Machine, server: type[Hub]) -> None:
    checkpoint = {file.name: file.read_bytes() for file in MICRO_FOLDER.iterdir()}
    server.repositories["openai/whisper-base"] = checkpoint
    machine.models("pull", "base")
    source = Path(machine.models("pull", "openai/whisper-base").stdout.strip())
    made = convert.ensure(source, "ctranslate2", machine.cache_dir)
    older = made.with_name(f"{made.name[:-16]}{'0' * 16}")
    older.mkdir()
    other = made.with_name("openai--whisper-base.en-" + "0" * 16)
    other.mkdir()
    whole = sum(map(len, [*checkpoint.values(), *MODEL.values()])) + sum(f.stat().st_size for f in made.iterdir())
    done = machine.models("remove", "base")
    assert done.stdout == f"base is removed: {whole / 1e6:,.0f} MB are free again.\n"
    assert not machine.has()
    assert not list(machine.hub_dir.glob("models--*"))
    assert [path.name for path in made.parent.iterdir() if not path.name.startswith(".")] == [other.name]
    assert machine.fails("remove", "base") == "The model 'base' is not downloaded."


def test_a_hub_id_removes_that_repository_alone(machine: Machine, server: type[Hub]) -> None:
    server.repositories["openai/whisper-base"] = CHECKPOINT
    machine.models("pull", "base")
    machine.models("pull", "openai/whisper-base")
    assert machine.models("rm", "openai/whisper-base").returncode == 0
    assert [path.name for path in machine.hub_dir.glob("models--*")] == [machine.repository.name]
    assert machine.has()


def test_remove_takes_one_file_of_a_repository_that_holds_many(machine: Machine, server: type[Hub]) -> None:
    files = {"ggml-base.bin": GGML + b"1" * 20_000, "ggml-base-q5_1.bin": GGML + b"2" * 20_000}
    server.repositories["ggerganov/whisper.cpp"] = files
    cpp = {"WHISPERD_BACKEND": "whisper.cpp"}
    for name in ("base", "base-q5_1"):
        assert machine.models("pull", name, env=cpp).returncode == 0
    assert machine.models("remove", "base", env=cpp).returncode == 0
    folder = machine.hub_dir / "models--ggerganov--whisper.cpp"
    assert [blob.name for blob in (folder / "blobs").iterdir()] == [checksum(files["ggml-base-q5_1.bin"])]
    assert not machine.has("base", "whisper.cpp")
    assert machine.has("base-q5_1", "whisper.cpp")
    assert machine.models("remove", "base-q5_1", env=cpp).returncode == 0
    assert not folder.exists()


def test_what_broke_off_can_be_removed_too(machine: Machine, server: type[Hub]) -> None:
    server.damaged, server.status = 2, 200
    machine.fails("pull", "base")
    (machine.repository / "blobs" / f"{checksum(WEIGHTS)}.model.bin.whisperd.incomplete").write_bytes(b"x")
    assert machine.models("remove", "base").returncode == 0
    assert not machine.repository.exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("micro", "The model 'micro' is a folder of its own, not a download: whisperd leaves it alone."),
        ("mine", "The model 'mine' is a folder of its own, not a download: whisperd leaves it alone."),
        ("small", "The model 'small' is not downloaded."),
        ("someone/nothing", "The model 'someone/nothing' is not downloaded."),
        ("../../etc", "There is no model '../../etc' for faster-whisper; choose one of tiny, "),
        ("a--b/c", "There is no model 'a--b/c' for faster-whisper; choose one of tiny, "),
    ],
)
def test_what_cannot_be_removed_is_a_sentence(machine: Machine, name: str, said: str) -> None:
    own = machine.hub_dir.parent / "own"
    own.mkdir()
    Path(machine.environ["WHISPERD_CONFIG"]).write_text(f"[models]\nmine = {json.dumps(str(own))}\n")
    assert machine.fails("remove", name).startswith(said)
    assert own.is_dir()


def test_list_says_what_is_here_and_how_large_it_is(machine: Machine) -> None:
    machine.models("pull", "base")
    listed = json.loads(machine.models("list", "--json").stdout)
    assert listed["backend"] == "faster-whisper"
    models = {model["name"]: model for model in listed["models"]}
    whole = sum(map(len, MODEL.values()))
    path = str(machine.repository / "snapshots" / REVISION)
    assert models["base"] == {"name": "base", "path": path, "bytes": whole}
    assert models["small"] == {"name": "small", "path": None, "bytes": None}
    rows = machine.models("list").stdout.splitlines()
    assert any(row.split() == ["base", "0", "MB", path] for row in rows)
    assert any(row.split() == ["small", "whisperd", "models", "pull", "small"] for row in rows)


def test_the_lock_of_a_process_that_is_gone_holds_nobody_up(machine: Machine) -> None:
    lock = machine.hub_dir / ".locks" / f"whisperd--{REPO.replace('/', '--')}.lock"
    lock.parent.mkdir(parents=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
    assert machine.models("pull", "base").returncode == 0


def test_a_bar_shows_on_a_terminal(machine: Machine, server: type[Hub]) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    command = machine.command("pull", "base")
    with subprocess.Popen(command, env=machine.environ, stdout=subprocess.DEVNULL, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # what Linux says when the other side of a terminal has closed
            while chunk := os.read(ours, 4096):
                shown += chunk
    os.close(ours)
    assert process.returncode == 0
    assert b"model.bin: 100%|" in shown
