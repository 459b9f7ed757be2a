from __future__ import annotations

import os
import platform

import psutil
import pytest

from app.hardware import Run, detect, look, memory_is_short

APPLE = {
    "sw_vers -productVersion": "15.1",
    "sysctl -n machdep.cpu.brand_string": "Apple M4 Pro",
    "sysctl -n sysctl.proc_translated": "0",
}
SERVER = {
    "cat /proc/cpuinfo": "processor\t: 0\nmodel name\t: AMD EPYC 9654\nprocessor\t: 1\nmodel name\t: AMD EPYC 9654\n",
    "nvidia-smi --query-gpu=name,memory.total --format=csv,noheader,nounits": (
        "NVIDIA H100 80GB HBM3, 81559\nNVIDIA H100 80GB HBM3, 81559"
    ),
}


def said(answers: dict[str, str]) -> Run:
    return lambda command: answers.get(" ".join(command), "")


def test_a_mac_with_apple_silicon() -> None:
    found = look("Darwin", "arm64", said(APPLE))
    assert (found.chip, found.version, found.machine) == ("Apple M4 Pro", "15.1", "arm64")
    assert found.apple_silicon
    assert not found.rosetta
    assert "Apple M4 Pro" in str(found)
    assert "macOS 15.1" in str(found)


def test_a_python_for_intel_on_it_is_translated() -> None:
    found = look("Darwin", "x86_64", said(APPLE | {"sysctl -n sysctl.proc_translated": "1"}))
    assert (found.machine, found.python) == ("arm64", "x86_64")
    assert found.rosetta


def test_a_mac_with_intel_is_no_apple_silicon() -> None:
    intel = {"sysctl -n machdep.cpu.brand_string": "Intel(R) Core(TM) i7-8569U CPU @ 2.80GHz"}
    found = look("Darwin", "x86_64", said(APPLE | intel | {"sysctl -n sysctl.proc_translated": ""}))
    assert not found.apple_silicon
    assert not found.rosetta


def test_a_server_with_gpus() -> None:
    found = look("Linux", "x86_64", said(SERVER))
    assert (found.chip, found.nvidia, found.nvidia_memory) == ("AMD EPYC 9654", "NVIDIA H100 80GB HBM3", 81559 * 2**20)
    assert "with 80 GB" in str(found)


@pytest.mark.parametrize("answer", ["", "No devices were found"])
def test_what_says_nothing_of_a_gpu_is_none(answer: str) -> None:
    query = "nvidia-smi --query-gpu=name,memory.total --format=csv,noheader,nounits"
    found = look("Linux", "aarch64", said({query: answer}))
    assert (found.nvidia, found.nvidia_memory, found.chip) == ("", 0, "aarch64")


def test_a_gpu_that_shares_the_machines_memory_is_one() -> None:
    query = "nvidia-smi --query-gpu=name,memory.total --format=csv,noheader,nounits"
    found = look("Linux", "aarch64", said({query: "NVIDIA GB10, [N/A]"}))
    assert (found.nvidia, found.nvidia_memory) == ("NVIDIA GB10", 0)
    assert str(found).endswith("Linux aarch64, NVIDIA GB10")


@pytest.mark.parametrize(("allowed", "memory"), [("268435456\n", 2**28), ("max\n", None), ("", None)])
def test_a_container_has_the_memory_that_it_is_allowed(allowed: str, memory: int | None) -> None:
    found = look("Linux", "x86_64", said({"cat /sys/fs/cgroup/memory.max": allowed}))
    assert found.memory == (memory or psutil.virtual_memory().total)


def test_this_machine_is_looked_at_once() -> None:
    found = detect()
    assert found is detect()
    assert (found.system, found.cores) == (platform.system(), os.cpu_count())
    assert found.memory > 2**29
    assert found.chip


@pytest.mark.parametrize(
    ("system", "level", "short"), [("Darwin", 1, False), ("Darwin", 2, False), ("Darwin", 4, True)]
)
def test_memory_is_short_where_macos_says_critical(system: str, level: int, short: bool) -> None:
    assert memory_is_short(system, lambda: level) is short


def test_elsewhere_nobody_is_asked_whether_memory_is_short() -> None:
    assert not memory_is_short("Linux", lambda: pytest.fail("asked"))
