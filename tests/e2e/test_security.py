"""SECURITY.md: each promise names tests, and these exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def promises() -> dict[int, str]:
    """Number -> all that stands under it."""
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    section = re.sub(r"<!--.*?-->", "", text.partition("## What is promised")[2], flags=re.DOTALL)
    found = re.findall(r"^(\d+)\. (.*?)(?=^\d+\. |^#|\Z)", section, re.MULTILINE | re.DOTALL)
    return {int(number): promise for number, promise in found}


@cache
def names_in(file: str) -> frozenset[str]:
    """The names of the tests in a file; none where there is no such file."""
    path = ROOT / file
    if not path.is_file():
        return frozenset()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(function.name for function in functions if function.name.startswith("test_"))


def test_promises_are_numbered_without_gaps() -> None:
    assert list(promises()) == list(range(1, len(promises()) + 1))
    assert len(promises()) >= 20


@pytest.mark.parametrize("number", promises())
def test_a_promise_names_tests_that_exist(number: int) -> None:
    named = NAMED.findall(promises()[number])
    assert named, f"Promise {number} names no test."
    missing = [f"{file}::{test}" for file, test in named if test not in names_in(file)]
    assert not missing, f"Promise {number} names what is not there: {', '.join(missing)}."


def test_a_test_that_is_not_there_is_noticed() -> None:
    assert names_in("tests/nowhere.py") == frozenset()
    assert "test_promises_are_numbered_without_gaps" in names_in("tests/e2e/test_security.py")
