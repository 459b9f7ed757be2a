from __future__ import annotations

from dataclasses import replace

import pytest

from app.backends import BACKENDS
from app.defaults import PARAMETERS, choose, memory_needed, too_large
from app.hardware import Hardware
from app.model_names import ALIASES, names_for
from app.settings import load_settings

ALL = tuple(BACKENDS)


def mac(gigabytes: int, python: str = "arm64") -> Hardware:
    return Hardware("Darwin", "15.1", "arm64", python, "Apple M4 Pro", 12, gigabytes * 2**30)


def linux(gigabytes: float = 16, gpu: int = 0) -> Hardware:
    memory = int(gigabytes * 2**30)
    return Hardware("Linux", "6.8", "x86_64", "x86_64", "AMD EPYC", 8, memory, "NVIDIA" * bool(gpu), gpu * 2**30)


@pytest.mark.parametrize(
    ("hardware", "installed", "backend", "model"),
    [
        (mac(24), ALL, "mlx-whisper", "large-v3-turbo"),
        (mac(8), ALL, "mlx-whisper", "small"),
        (mac(24), ("faster-whisper", "whisper.cpp"), "whisper.cpp", "large-v3-turbo"),
        (mac(24), ("faster-whisper",), "faster-whisper", "base"),
        (mac(24, python="x86_64"), ALL, "faster-whisper", "base"),
        (mac(24), (), "mlx-whisper", "large-v3-turbo"),
        (linux(), ALL, "faster-whisper", "base"),
        (linux(0.9), ALL, "faster-whisper", "tiny"),
        (linux(0.2), ALL, "faster-whisper", "tiny"),
        (linux(), ("openai-whisper", "mlx-whisper"), "openai-whisper", "base"),
        (linux(gpu=24), ALL, "faster-whisper", "large-v3-turbo"),
        (linux(gpu=4), ALL, "faster-whisper", "small"),
        (linux(gpu=24), ("whisper.cpp",), "whisper.cpp", "base"),
    ],
)
def test_each_machine_gets_what_suits_it(
    hardware: Hardware, installed: tuple[str, ...], backend: str, model: str
) -> None:
    found = choose(hardware, installed)
    assert (found.backend, found.model) == (backend, model)
    assert found.why_backend != "configured" != found.why_model
    assert not too_large(hardware, backend, model) or hardware.memory < 2**29


def test_a_gpu_without_memory_of_its_own_has_the_machines() -> None:
    shared = replace(linux(64), nvidia="NVIDIA GB10")
    assert choose(shared, ALL).model == "large-v3-turbo"


def test_what_was_asked_for_stays_and_the_rest_follows_it() -> None:
    found = choose(mac(24), ALL, backend="faster-whisper")
    assert (found.backend, found.why_backend, found.model) == ("faster-whisper", "configured", "base")
    found = choose(mac(24), ALL, model="medium")
    assert (found.backend, found.model, found.why_model) == ("mlx-whisper", "medium", "configured")


def test_a_backend_that_would_be_better_is_named() -> None:
    assert "mlx-whisper is not" in choose(mac(24), ("faster-whisper",)).why_backend


def test_a_model_that_does_not_fit_is_named_with_one_that_does() -> None:
    said = too_large(mac(8), "mlx-whisper", "large-v3")
    assert "large-v3 needs about 10.2 GB on mlx-whisper" in said
    assert "large-v3-turbo fits" in said
    assert too_large(mac(24), "mlx-whisper", "large") == ""
    assert too_large(linux(64, gpu=4), "openai-whisper", "large-v3").endswith("small fits.")
    assert too_large(mac(8), "mlx-whisper", "someone/whisper") == ""


def test_every_name_of_the_catalog_has_a_figure() -> None:
    for backend in ("mlx-whisper", "faster-whisper", "whisper.cpp", "openai-whisper"):
        for name in [*names_for(backend), *ALIASES]:
            assert memory_needed(backend, name), f"{name} on {backend}"
    assert memory_needed("fake", "base") is None


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_quantised_weights_need_less(name: str) -> None:
    plain, quantised = memory_needed("whisper.cpp", name), memory_needed("whisper.cpp", f"{name}-q5_1")
    assert plain
    assert quantised
    assert quantised < plain


def test_settings_say_what_was_picked_and_what_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.hardware.detect", lambda: linux(gpu=24))
    picked = load_settings()
    assert (picked.backend, picked.default_model) == ("faster-whisper", "large-v3-turbo")
    assert picked.choice.why_backend == "the fastest on an NVIDIA GPU"
    monkeypatch.setenv("WHISPERD_MODEL", "small")
    monkeypatch.setenv("WHISPERD_BACKEND", "whisper.cpp")
    asked = load_settings()
    assert (asked.backend, asked.default_model) == ("whisper.cpp", "small")
    assert asked.choice.why_backend == asked.choice.why_model == "configured"
