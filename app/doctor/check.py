"""One finding."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Check:
    """What was ``found`` out about ``name``, a sentence, and its ``remedy``, another, where it is not well."""

    name: str
    status: Status
    found: str
    remedy: str = ""


def ok(name: str, found: str) -> Check:
    return Check(name, Status.OK, found)


def warning(name: str, found: str, remedy: str) -> Check:
    return Check(name, Status.WARNING, found, remedy)


def failed(name: str, found: str, remedy: str) -> Check:
    return Check(name, Status.FAILED, found, remedy)


def skipped(name: str, found: str, remedy: str = "") -> Check:
    return Check(name, Status.SKIPPED, found, remedy)
