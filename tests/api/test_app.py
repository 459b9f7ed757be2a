from __future__ import annotations

import json
from pathlib import Path

import psutil

from app.api.app import create_app
from app.settings import load_settings
from tests.conftest import Server

COMMITTED = Path(__file__).parents[2] / "openapi" / "openapi.json"


def test_the_committed_openapi_document_is_the_apps() -> None:
    document = create_app(load_settings(backend="fake", model="micro")).openapi()
    assert json.loads(COMMITTED.read_text()) == document, "run: python -m app.api.document > openapi/openapi.json"


def test_the_http_process_holds_no_model_library(server: Server) -> None:
    """Looked up in the maps of the running process, so that nothing imported late is missed."""
    mapped = {Path(entry.path).name for entry in psutil.Process(server.pid).memory_maps()}
    heavy = [
        name
        for name in mapped
        if any(word in name for word in ("numpy", "ctranslate2", "onnxruntime", "libav", "mlx", "torch"))
    ]
    assert heavy == []
