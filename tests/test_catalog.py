"""Names are resolved against made-up folders; downloads run against a stand-in for the hub on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.catalog import MICRO_FOLDER, Catalog, model_key
from app.errors import UnknownModel
from app.model_names import CHECKPOINTS, SOURCES
from app.settings import hub_cache
from tests.hub import REVISION, Hub

#: The least that passes for a model in each format.
CTRANSLATE2 = {"config.json": b"{}", "vocabulary.json": b"[]", "model.bin": b"\6\0\0\0\x0c\0WhisperSpec\0"}
MLX = {"config.json": b'{"n_audio_state": 8}', "weights.npz": b"PK"}
GGML = b"lmgg" + bytes(44)
CHECKPOINT = {"config.json": b'{"model_type": "whisper", "d_model": 8}', "model.safetensors": b"x"}


def put(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def download(cache: Path, repo: str, files: dict[str, bytes], revision: str = REVISION) -> Path:
    """Lay a repository out as huggingface_hub does."""
    base = cache / f"models--{repo.replace('/', '--')}"
    (base / "refs").mkdir(parents=True, exist_ok=True)
    (base / "refs" / "main").write_text(revision)
    return put(base / "snapshots" / revision, files)


def refusal(catalog: Catalog, name: str) -> str:
    with pytest.raises(UnknownModel) as caught:
        catalog.resolve(name)
    assert caught.value.param == "model"
    return caught.value.message


@pytest.mark.parametrize("name", [None, "", "  ", "whisper-1", "gpt-transcribe", "gpt-4o-mini-transcribe-2025-12-15"])
def test_names_that_leave_the_choice_to_the_server_mean_the_default(tmp_path: Path, name: str | None) -> None:
    folder = download(tmp_path, "Systran/faster-whisper-small", CTRANSLATE2)
    model = Catalog("faster-whisper", tmp_path, "small").resolve(name)
    assert (model.name, model.path, model.repo) == ("small", folder, "Systran/faster-whisper-small")
    assert (model.created, model.owned_by) == (int(folder.stat().st_mtime), "Systran")


@pytest.mark.parametrize(
    "name",
    [
        "large-v3-turbo",
        "turbo",
        "mlx-community/whisper-large-v3-turbo",
        "openai/whisper-large-v3-turbo",
        "mobiuslabsgmbh/faster-whisper-large-v3-turbo",
    ],
)
def test_a_model_answers_to_its_name_its_alias_and_its_hub_ids(tmp_path: Path, name: str) -> None:
    folder = download(tmp_path, "mlx-community/whisper-large-v3-turbo", MLX)
    model = Catalog("mlx-whisper", tmp_path, "base").resolve(name)
    assert (model.name, model.path) == ("large-v3-turbo", folder)


def test_a_downloaded_checkpoint_of_openai_serves_any_backend(tmp_path: Path) -> None:
    folder = download(tmp_path, "openai/whisper-base", CHECKPOINT)
    for backend in SOURCES:
        assert Catalog(backend, tmp_path, "tiny").resolve("base").path == folder
    own = download(tmp_path, "Systran/faster-whisper-base", CTRANSLATE2)
    assert Catalog("faster-whisper", tmp_path, "tiny").resolve("base").path == own


def test_a_downloaded_fine_tune_answers_to_its_hub_id(tmp_path: Path) -> None:
    folder = download(tmp_path, "someone/whisper-dialect", CHECKPOINT)
    model = Catalog("mlx-whisper", tmp_path, "base").resolve("someone/whisper-dialect")
    assert (model.name, model.path, model.owned_by) == ("someone/whisper-dialect", folder, "someone")


def test_a_known_model_that_is_not_downloaded_names_the_command(tmp_path: Path) -> None:
    catalog = Catalog("faster-whisper", tmp_path, "base")
    assert refusal(catalog, "large-v3") == (
        "The model 'large-v3' is not downloaded; `whisperd models pull large-v3` downloads it."
    )
    assert "`whisperd models pull large-v3-turbo`" in refusal(catalog, "turbo")
    assert "`whisperd models pull base`" in refusal(catalog, "whisper-1")


def test_any_other_name_does_not_exist(tmp_path: Path) -> None:
    catalog = Catalog("faster-whisper", tmp_path, "base")
    assert refusal(catalog, "large-v9") == "The model 'large-v9' does not exist on this server."
    assert "does not exist" in refusal(catalog, "someone/whisper-dialect")
    assert len(refusal(catalog, "x" * 5000)) < 200


def test_a_path_in_a_request_is_never_opened(tmp_path: Path) -> None:
    model = put(tmp_path / "own", CTRANSLATE2)
    catalog = Catalog("faster-whisper", tmp_path / "hub", "base")
    download(tmp_path / "hub", "a/b", CTRANSLATE2)
    for name in (str(model), "../own", "./own", "own", f"..{model}", "a/b/../b", "a--b/c", "~/own", "a/../../own"):
        assert "does not exist" in refusal(catalog, name)


def test_a_folder_that_the_operator_registered_goes_before_all_else(tmp_path: Path) -> None:
    own = put(tmp_path / "own", CHECKPOINT)
    catalog = Catalog("faster-whisper", tmp_path / "hub", "base", {"base": own, "whisper-1": own})
    assert catalog.resolve("base").path == own
    assert catalog.resolve("whisper-1").name == "whisper-1"
    assert catalog.resolve("base").owned_by == "local"
    assert catalog.resolve("base").repo is None


def test_a_registered_folder_in_the_wrong_format_is_said_without_its_path(tmp_path: Path) -> None:
    own = put(tmp_path / "own", MLX)
    message = refusal(Catalog("faster-whisper", tmp_path / "hub", "base", {"mine": own}), "mine")
    assert message == (
        "The model 'mine' is registered, but its folder holds no whole Whisper model that faster-whisper can use."
    )


def test_a_default_given_as_a_folder_gets_the_folders_name(tmp_path: Path) -> None:
    own = put(tmp_path / "court-stenographer", CHECKPOINT)
    catalog = Catalog("mlx-whisper", tmp_path / "hub", str(own))
    assert catalog.resolve("whisper-1").name == catalog.resolve("court-stenographer").name == "court-stenographer"
    assert [model.name for model in catalog.available()] == ["court-stenographer"]
    assert "does not exist" in refusal(catalog, str(own))


def test_an_unfinished_download_is_no_model(tmp_path: Path) -> None:
    folder = download(tmp_path, "Systran/faster-whisper-base", CTRANSLATE2)
    catalog = Catalog("faster-whisper", tmp_path, "base")
    assert catalog.resolve("base").path == folder
    (folder / "model.bin").unlink()
    assert "is not downloaded" in refusal(catalog, "base")
    (folder / "model.bin").symlink_to(tmp_path / "blob-that-never-came")
    assert "is not downloaded" in refusal(catalog, "base")
    assert catalog.available() == []


def test_the_snapshot_of_main_is_used_and_an_older_one_where_that_is_unfinished(tmp_path: Path) -> None:
    old = download(tmp_path, "Systran/faster-whisper-base", CTRANSLATE2, "1" * 40)
    new = download(tmp_path, "Systran/faster-whisper-base", CTRANSLATE2, "2" * 40)
    os.utime(old)
    catalog = Catalog("faster-whisper", tmp_path, "base")
    assert catalog.resolve("base").path == new
    (new / "model.bin").unlink()
    assert catalog.resolve("base").path == old
    (tmp_path / "models--Systran--faster-whisper-base" / "refs" / "main").unlink()
    assert catalog.resolve("base").path == old


def test_micro_is_had_by_name_and_never_offered(tmp_path: Path) -> None:
    catalog = Catalog("faster-whisper", tmp_path, "base")
    assert catalog.resolve("micro").path == MICRO_FOLDER
    assert catalog.available() == []
    for chosen in (
        Catalog("mlx-whisper", tmp_path, "micro"),
        Catalog("mlx-whisper", tmp_path, "base", {"micro": MICRO_FOLDER}),
    ):
        assert [model.name for model in chosen.available()] == ["micro"]


def test_available_lists_the_default_first_and_each_model_once(tmp_path: Path) -> None:
    hub = tmp_path / "hub"
    download(hub, "Systran/faster-whisper-tiny", CTRANSLATE2)
    download(hub, "openai/whisper-tiny", CHECKPOINT)
    download(hub, "Systran/faster-whisper-small", CTRANSLATE2)
    download(hub, "mlx-community/whisper-medium-mlx", MLX)
    download(hub, "someone/whisper-dialect", CHECKPOINT)
    download(hub, "someone/a-text-model", {"config.json": b'{"model_type": "bert"}', "model.safetensors": b"x"})
    (hub / "version.txt").write_text("1")
    catalog = Catalog("faster-whisper", hub, "small", {"mine": put(tmp_path / "mine", CTRANSLATE2)})
    assert [model.name for model in catalog.available()] == ["small", "mine", "tiny", "someone/whisper-dialect"]
    for model in catalog.available():
        assert catalog.resolve(model.name) == model
    assert Catalog("faster-whisper", tmp_path / "nowhere", "small").available() == []


def test_the_scripted_backend_has_its_default_without_weights(tmp_path: Path) -> None:
    catalog = Catalog("fake", tmp_path, "base")
    assert catalog.resolve("whisper-1").name == "base"
    assert [model.name for model in catalog.available()] == ["base"]
    assert "is not downloaded" in refusal(catalog, "tiny")


def test_the_hubs_cache_is_where_its_own_library_looks(tmp_path: Path) -> None:
    home = str(tmp_path)
    for chosen in ({}, {"HF_HOME": "/a"}, {"HF_HUB_CACHE": "/b", "HF_HOME": "/a"}, {"XDG_CACHE_HOME": "/c"}):
        script = "from huggingface_hub import constants; print(constants.HF_HUB_CACHE)"
        environ = {"HOME": home, "PATH": os.environ["PATH"], **chosen}
        theirs = subprocess.run([sys.executable, "-c", script], env=environ, capture_output=True, text=True, check=True)
        ours = str(hub_cache(chosen)).replace(str(Path.home()), home)
        assert ours == theirs.stdout.strip()


def test_every_backend_has_a_source_for_every_name() -> None:
    for table in SOURCES.values():
        assert set(table) >= set(CHECKPOINTS)
        assert len(set(table.values())) == len(table)


def test_a_model_that_is_one_file_of_many_answers_to_its_own_name(tmp_path: Path) -> None:
    folder = download(tmp_path, "ggerganov/whisper.cpp", {"ggml-base.bin": GGML, "ggml-base-q5_1.bin": GGML})
    catalog = Catalog("whisper.cpp", tmp_path, "base")
    for name in ("base", "base-q5_1"):
        model = catalog.resolve(name)
        assert (model.name, model.path, model.repo) == (name, folder / f"ggml-{name}.bin", "ggerganov/whisper.cpp")
        assert model_key(model.path) == name
    assert [model.name for model in catalog.available()] == ["base", "base-q5_1"]
    for name in ("small", "ggerganov/whisper.cpp"):
        with pytest.raises(UnknownModel):
            catalog.resolve(name)
    with pytest.raises(UnknownModel):
        Catalog("faster-whisper", tmp_path, "base").resolve("base-q5_1")


def test_asking_for_names_imports_nothing_heavy() -> None:
    script = (
        "import sys; from pathlib import Path; from app.catalog import Catalog\n"
        "c = Catalog('faster-whisper', Path('/nowhere'), 'micro'); c.resolve(''); c.available()\n"
        "print({'numpy', 'huggingface_hub', 'ctranslate2', 'safetensors', 'av', 'httpx'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def pull(cache: Path, endpoint: str, name: str, *, backend: str = "faster-whisper", **environ: str) -> list[str]:
    """What ``pull`` returned or said, in a process of its own: the hub's library reads its environment on import."""
    script = (
        "import sys; from pathlib import Path\n"
        "from app.catalog import Catalog; from app.errors import WhisperdError\n"
        "cache, backend, name = sys.argv[1:]\n"
        "try: print('path', Catalog(backend, Path(cache), 'base').pull(name))\n"
        "except WhisperdError as error: print(error.code, error.message)\n"
    )
    base = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and not k.lower().endswith("_proxy")}
    done = subprocess.run(
        [sys.executable, "-c", script, str(cache), backend, name],
        env=base | {"HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(cache / "home"), **environ},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout.strip().split(" ", 1)


def test_pull_fetches_what_the_model_needs_and_nothing_else(tmp_path: Path, hub: tuple[str, type[Hub]]) -> None:
    endpoint, server = hub
    extra = {
        "README.md": b"x",
        "pytorch_model.bin": b"x",
        "tokenizer.json": b"{}",
        "model.fp32-00001-of-00002.safetensors": b"x",
    }
    server.repositories["Systran/faster-whisper-base"] = CTRANSLATE2 | extra
    word, path = pull(tmp_path, endpoint, "whisper-1")
    assert word == "path"
    assert {file.name for file in Path(path).iterdir()} == {*CTRANSLATE2, "tokenizer.json"}
    assert Catalog("faster-whisper", tmp_path, "base").resolve("base").path == Path(path)
    fetched = list(server.seen)
    assert pull(tmp_path, endpoint, "base") == ["path", path]
    assert server.seen == fetched, "nothing is fetched twice"
    assert pull(tmp_path, "http://127.0.0.1:9", "base") == ["path", path], "what is here needs no network"


def test_pull_fetches_one_file_of_a_repository_that_holds_many(tmp_path: Path, hub: tuple[str, type[Hub]]) -> None:
    endpoint, server = hub
    server.repositories["ggerganov/whisper.cpp"] = {f"ggml-{name}.bin": GGML for name in ("base", "base-q5_1", "tiny")}
    word, path = pull(tmp_path, endpoint, "base-q5_1", backend="whisper.cpp")
    assert word == "path"
    assert [file.name for file in Path(path).parent.iterdir()] == ["ggml-base-q5_1.bin"]
    assert Catalog("whisper.cpp", tmp_path, "base").resolve("base-q5_1").path == Path(path)
    code, _ = pull(tmp_path, endpoint, "ggerganov/whisper.cpp", backend="whisper.cpp")
    assert code == "model_not_found"


def test_pull_takes_a_hub_id(tmp_path: Path, hub: tuple[str, type[Hub]]) -> None:
    endpoint, server = hub
    server.repositories["someone/whisper-dialect"] = CHECKPOINT | {"tokenizer.json": b"{}"}
    word, path = pull(tmp_path, endpoint, "someone/whisper-dialect", backend="mlx-whisper")
    assert word == "path"
    assert Catalog("mlx-whisper", tmp_path, "base").resolve("someone/whisper-dialect").path == Path(path)


def test_a_repository_that_does_not_exist_is_a_sentence(tmp_path: Path, hub: tuple[str, type[Hub]]) -> None:
    code, message = pull(tmp_path, hub[0], "someone/nothing")
    assert code == "model_not_found"
    assert message == "The hub has no repository someone/nothing, or it is private and you are not logged in."


def test_a_repository_without_a_whisper_model_is_a_sentence(tmp_path: Path, hub: tuple[str, type[Hub]]) -> None:
    endpoint, server = hub
    server.repositories["someone/mlx-only"] = MLX
    code, message = pull(tmp_path, endpoint, "someone/mlx-only")
    assert code == "invalid_request"
    assert "holds no whole Whisper model that faster-whisper can use" in message


def test_without_a_network_pull_says_so(tmp_path: Path, hub: tuple[str, type[Hub]]) -> None:
    code, message = pull(tmp_path, "http://127.0.0.1:9", "tiny")
    assert code == "backend_unavailable"
    assert message == "http://127.0.0.1:9 cannot be reached, so Systran/faster-whisper-tiny was not downloaded."
    code, message = pull(tmp_path, hub[0], "tiny", HF_HUB_OFFLINE="1")
    assert code == "backend_unavailable"
    assert message == "HF_HUB_OFFLINE forbids the network, and Systran/faster-whisper-tiny is not on this machine."


def test_a_repository_that_lacks_its_weights_is_refused(tmp_path: Path, hub: tuple[str, type[Hub]]) -> None:
    endpoint, server = hub
    server.repositories["Systran/faster-whisper-base"] = {k: v for k, v in CTRANSLATE2.items() if k != "model.bin"}
    assert pull(tmp_path, endpoint, "base")[0] == "invalid_request"
    assert "is not downloaded" in refusal(Catalog("faster-whisper", tmp_path, "base"), "base")


def test_pull_of_an_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(
        UnknownModel, match=r"There is no model 'huge' for faster-whisper; choose one of tiny, .*hub id"
    ):
        Catalog("faster-whisper", tmp_path, "base").pull("huge")


def test_pull_of_micro_or_a_registered_folder_downloads_nothing(tmp_path: Path) -> None:
    own = put(tmp_path / "own", CTRANSLATE2)
    catalog = Catalog("faster-whisper", tmp_path, "mine", {"mine": own})
    assert catalog.pull("micro") == MICRO_FOLDER
    assert catalog.pull("whisper-1") == own
