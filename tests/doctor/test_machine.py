from __future__ import annotations

from dataclasses import replace

import pytest

from app.doctor.check import Check, Status
from app.doctor.machine import check_machine
from app.hardware import Hardware

MAC = Hardware("Darwin", "15.1", "arm64", "arm64", "Apple M4 Pro", 12, 24 * 2**30)
LINUX = Hardware("Linux", "6.8", "x86_64", "x86_64", "AMD EPYC", 8, 16 * 2**30)


def named(hardware: Hardware, name: str) -> Check:
    return next(check for check in check_machine(hardware) if check.name == name)


def test_a_fit_mac_is_well() -> None:
    found = list(check_machine(MAC))
    assert {check.status for check in found} == {Status.OK}
    assert "Apple M4 Pro" in found[0].found


def test_a_python_that_rosetta_translates_fails() -> None:
    check = named(replace(MAC, python="x86_64"), "python")
    assert check.status is Status.FAILED
    assert "Rosetta" in check.found
    assert "Apple Silicon" in check.remedy


@pytest.mark.parametrize(("version", "status"), [("13.6", "warning"), ("14.0", "ok"), ("26.1", "ok"), ("", "ok")])
def test_mlx_needs_a_macos_that_is_not_too_old(version: str, status: str) -> None:
    assert named(replace(MAC, version=version), "macos").status == status


def test_an_old_macos_on_intel_is_none_of_mlx() -> None:
    intel = replace(MAC, machine="x86_64", python="x86_64", version="12.7")
    assert {check.status for check in check_machine(intel)} == {Status.OK}


def test_a_slow_blas_is_a_warning_with_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.doctor.machine.installed", lambda _: True)
    monkeypatch.setattr("app.doctor.machine.openblas_preload", lambda: None)
    check = named(LINUX, "blas")
    assert check.status is Status.WARNING
    assert "libopenblas0-pthread" in check.remedy
    monkeypatch.setattr("app.doctor.machine.openblas_preload", lambda: "/usr/lib/libopenblas.so.0")
    assert named(LINUX, "blas").status is Status.OK
