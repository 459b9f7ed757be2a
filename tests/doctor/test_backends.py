from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.doctor import backends
from app.doctor.backends import ask_torch, check_backends, check_torch
from app.doctor.check import Check, Status
from app.hardware import detect
from app.settings import Settings, load_settings
from tests.doctor.test_machine import LINUX, MAC

MPS = {
    "version": "2.13.0", "built": True, "available": True, "cuda": False, "fallback": None, "high": None, "low": None
}  # fmt: skip


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(backend="faster-whisper", cache_dir=tmp_path / "cache", state_dir=tmp_path / "state")


def named(found: list[Check], name: str) -> Check:
    return next(check for check in found if check.name == name)


def only(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr("app.doctor.backends.installed", lambda name: name in names)


def test_a_backend_that_works_has_transcribed_the_sample(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, "faster-whisper")
    check = named(list(check_backends(settings, detect(), quick=False)), "faster-whisper")
    assert (check.status, check.remedy) == (Status.OK, "")
    assert "on cpu (int8" in check.found
    assert not any(tmp_path.iterdir()), "a server that runs there is not disturbed, and nothing is left behind"


def test_an_unusable_cache_is_no_fault_of_the_backend(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").write_text("no folder")
    only(monkeypatch, "faster-whisper")
    assert named(list(check_backends(settings, detect(), quick=False)), "faster-whisper").status is Status.OK


def test_the_chosen_backend_must_be_installed_others_need_not(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch)
    found = list(check_backends(settings, LINUX, quick=True))
    assert named(found, "faster-whisper").status is Status.FAILED
    assert named(found, "mlx-whisper").status is Status.SKIPPED
    assert all("pip install" in check.remedy for check in found)
    assert [check.name for check in found] == ["faster-whisper", "mlx-whisper", "whisper.cpp", "openai-whisper"]
    asked = settings.model_copy(update={"fallback": "whisper.cpp"})
    assert named(list(check_backends(asked, LINUX, quick=True)), "whisper.cpp").status is Status.WARNING


def test_quickly_nothing_is_tried(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "faster-whisper")
    check = named(list(check_backends(settings, LINUX, quick=True)), "faster-whisper")
    assert (check.status, check.found) == (Status.OK, "Installed; not tried.")


@pytest.mark.parametrize(("chosen", "status"), [("faster-whisper", "failed"), ("whisper.cpp", "warning")])
def test_a_backend_that_cannot_be_imported_says_how_to_repair_it(
    chosen: str, status: str, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ctranslate2.py").write_text("raise ImportError('libcudart.so.12: cannot open shared object file')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    only(monkeypatch, "faster-whisper")
    asked = settings.model_copy(update={"backend": chosen})
    check = named(list(check_backends(asked, LINUX, quick=False)), "faster-whisper")
    assert check.status == status
    assert "could not be loaded" in check.found
    assert "pip install" in check.remedy


def test_a_wrong_text_fails(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other.txt").write_text("Something else was said.")
    monkeypatch.setattr(backends, "SAMPLE_TEXT", tmp_path / "other.txt")
    only(monkeypatch, "faster-whisper")
    check = named(list(check_backends(settings, LINUX, quick=False)), "faster-whisper")
    assert check.status is Status.FAILED
    assert "not as it was spoken: 'The old gentleman" in check.found
    assert "--device cpu" in check.remedy


@pytest.mark.parametrize(("device", "remedy"), [("auto", "a build of faster-whisper"), ("cpu", "`device` says cpu")])
def test_a_gpu_that_is_not_used_is_a_warning(
    device: str, remedy: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, "faster-whisper")
    asked = settings.model_copy(update={"device": device})
    with_gpu = replace(LINUX, nvidia="NVIDIA T4", nvidia_memory=2**34)
    check = named(list(check_backends(asked, with_gpu, quick=False)), "faster-whisper")
    assert check.status is Status.WARNING
    assert "the NVIDIA T4 was not used" in check.found
    assert remedy in check.remedy


# --- torch's old troubles ---


@pytest.mark.parametrize(
    ("said", "name", "status", "word"),
    [
        ({}, "torch", "ok", "PYTORCH_ENABLE_MPS_FALLBACK=1"),
        ({"built": False, "available": False}, "torch", "failed", "built without MPS"),
        ({"available": False}, "torch", "failed", "does not offer it"),
        ({"fallback": "0"}, "torch", "warning", "what MPS lacks will fail"),
        ({"high": "0.0"}, "mps memory", "warning", "may freeze"),
        ({"high": "1.2"}, "mps memory", "ok", "is 1.2"),
        ({"high": "0.7"}, "mps memory", "ok", "is 0.7"),  # whisperd lowers the other for its worker
        ({"high": "0.7", "low": "0.5"}, "mps memory", "ok", "LOW_WATERMARK_RATIO is 0.5"),
        ({"high": "0.7", "low": "1.4"}, "mps memory", "failed", "refuses"),
        ({"low": "1.8"}, "mps memory", "failed", "refuses"),
        ({"high": "2.5"}, "mps memory", "failed", "refuses"),
        ({"high": "-1"}, "mps memory", "failed", "refuses"),
        ({"high": "0", "low": "1.9"}, "mps memory", "warning", "may freeze"),
        ({"high": "lots"}, "mps memory", "warning", "may freeze"),  # which torch reads as 0
    ],
)
def test_torch_on_a_mac(said: dict[str, Any], name: str, status: str, word: str) -> None:
    check = named(list(check_torch(MAC, MPS | said)), name)
    assert check.status == status
    assert word in check.found
    assert (check.remedy == "") == (status == "ok")


def test_torch_elsewhere_needs_no_mps() -> None:
    (check,) = check_torch(LINUX, MPS | {"built": False, "available": False})
    assert (check.status, check.found) == (Status.OK, "torch 2.13.0, without CUDA.")


def test_torch_is_asked_in_a_process_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = tmp_path / "torch"
    torch.mkdir()
    (torch / "__init__.py").write_text(
        "from types import SimpleNamespace as N\n__version__ = '9.9'\n"
        "backends = N(mps=N(is_built=lambda: True, is_available=lambda: False))\ncuda = N(is_available=lambda: False)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTORCH_MPS_HIGH_WATERMARK_RATIO", "0.5")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "torch.py").write_text("raise SystemExit('not this one')")
    monkeypatch.chdir(tmp_path / "here")
    said = ask_torch()
    assert json.loads(json.dumps(said)) == {
        "version": "9.9", "built": True, "available": False, "cuda": False, "fallback": None, "high": "0.5", "low": None
    }  # fmt: skip
    (torch / "__init__.py").write_text("raise OSError('dlopen: wrong architecture')")
    (check,) = check_torch(MAC, ask_torch())
    assert check.status is Status.FAILED
    assert "wrong architecture" in check.found
