"""docs/operations.md says what is true of the code: its limits, its events, and metrics that are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import yaml
from pydantic_core import PydanticUndefined

from app.metrics import Metrics
from app.settings import Settings

ROOT = Path(__file__).parents[2]
HANDBOOK = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", HANDBOOK, re.MULTILINE | re.DOTALL)
    assert found is not None, f"There is no section {title!r}."
    return found[1]


def rows(text: str) -> list[list[str]]:
    """The cells of each row of the tables in ``text`` whose first cell is code."""
    return [re.split(r"\s*\|\s*", line.strip("| ")) for line in text.splitlines() if line[:3] == "| `"]


LIMITS = [(row[0].strip("`"), row[1]) for row in rows(section("Limits")) if row[0].strip("`") in Settings.model_fields]


@pytest.mark.parametrize(("name", "default"), LIMITS)
def test_a_limit_has_the_default_that_is_documented(name: str, default: str) -> None:
    actual = Settings.model_fields[name].default
    assert actual is not PydanticUndefined
    assert default == ("none" if actual == "" else f"{actual:g}")


def calls() -> list[tuple[str, ast.expr, set[str | None]]]:
    """Where the code logs an event: the module, the message, the names of the fields (None for ``**more``)."""
    nodes = (
        (path.name, node)
        for path in sorted((ROOT / "app").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("event", "log.event") and node.args
    )
    return [(name, node.args[0], {each.arg for each in node.keywords}) for name, node in nodes]


#: Logged by other means: with the type of what happened alone.
UNEXPECTED = "unexpected error"
EVENTS = {row[0].strip("`"): set(re.findall(r"`(\w+)`", row[2])) for row in rows(section("Log"))}


def test_each_event_is_described_and_nothing_else_is() -> None:
    for module, message, _ in calls():
        assert isinstance(message, ast.Constant), f"{module} logs {ast.unparse(message)}, which cannot be looked up."
    assert set(EVENTS) == {message.value for _, message, _ in calls() if isinstance(message, ast.Constant)} | {
        UNEXPECTED
    }


@pytest.mark.parametrize(
    ("message", "fields"),
    [(message.value, fields) for _, message, fields in calls() if isinstance(message, ast.Constant)],
)
def test_an_event_has_the_fields_that_are_documented(message: str, fields: set[str | None]) -> None:
    # The request's id stands on every line of a request, whether or not the event names it.
    named = fields - {"request", None}
    assert named <= EVENTS[message] if None in fields else named == EVENTS[message]


def test_alerts_are_rules_over_metrics_that_are_there() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", section("Alerts"), re.DOTALL)
    rules = yaml.safe_load(block)["groups"][0]["rules"]
    assert len(rules) >= 7
    assert all({"alert", "expr", "annotations"} <= rule.keys() for rule in rules)
    families = {family.name: family.type for family in Metrics().registry.collect()}
    known = {name + ("_total" if kind == "counter" else "") for name, kind in families.items()}
    known |= {name + end for name, kind in families.items() if kind == "histogram" for end in ("_sum", "_count")}
    used = {name for rule in rules for name in re.findall(r"\bwhisperd_\w+", rule["expr"])}
    assert used
    assert used <= known
