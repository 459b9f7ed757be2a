"""deploy/grafana/whisperd.json can be imported, and asks for nothing that a server does not show."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import StartServer, clips, script_of

DASHBOARD: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "deploy" / "grafana" / "whisperd.json").read_text(encoding="utf-8")
)
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
EXPRESSIONS = [target["expr"] for panel in PANELS for target in panel["targets"]]
#: Grafana's own; the last version that its import raises older ones to.
SCHEMA = 42
GRID_WIDTH = 24


def test_each_metric_is_one_that_a_server_shows(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(backend="fake", model=script_of(tmp_path))
    assert server.transcribe(clips("en000")[0].path).status_code == 200
    shown, described = set[str](), set[str]()
    for family in text_string_to_metric_families(httpx.get(f"{server.url}/metrics").text):
        described.add(family.name + ("_total" if family.type == "counter" else ""))
        shown |= {sample.name for sample in family.samples}
    server.stop()
    asked = {name for expression in EXPRESSIONS for name in re.findall(r"\bwhisperd_\w+", expression)}
    assert asked
    # What has labels and has not happened yet (a restart, a switch) is announced without a figure.
    assert asked <= shown | described


def test_the_dashboard_can_be_imported() -> None:
    assert DASHBOARD["schemaVersion"] == SCHEMA
    assert DASHBOARD["id"] is None, "an id would be another dashboard's where it is imported"
    assert DASHBOARD["title"]
    assert DASHBOARD["uid"]
    ids = [panel["id"] for panel in PANELS]
    assert len(set(ids)) == len(ids)
    for panel in PANELS:
        assert panel["type"] in {"stat", "timeseries"}
        assert panel["title"]
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references) > 0


def test_panels_lie_side_by_side() -> None:
    places = [panel["gridPos"] for panel in PANELS]
    for place in places:
        assert min(place["x"], place["y"]) >= 0
        assert min(place["w"], place["h"]) > 0
        assert place["x"] + place["w"] <= GRID_WIDTH
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below, f"{one} and {other} overlap"


def test_the_data_source_is_the_readers_choice() -> None:
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    for asks in [*PANELS, *(target for panel in PANELS for target in panel["targets"])]:
        assert asks["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    named = {name for expression in EXPRESSIONS for name in re.findall(r"\$(\w+)", expression)}
    assert named - {"__rate_interval"} <= variables.keys()


def test_each_expression_is_closed() -> None:
    for expression in EXPRESSIONS:
        for opening, closing in ("()", "[]", "{}"):
            assert expression.count(opening) == expression.count(closing), expression
