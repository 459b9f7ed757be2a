from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from app.catalog import Catalog
from app.engine.pulls import Pulls
from app.errors import WhisperdError
from tests.test_catalog import CTRANSLATE2, download

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_a_bug_in_a_pull_costs_that_pull_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: Any) -> dict[str, Any]:
        raise ValueError("a bug")

    monkeypatch.setattr(Pulls, "_child", broken)
    async with Pulls(Catalog("faster-whisper", tmp_path, "base"), tmp_path).running() as pulls:
        for _ in range(2):
            with anyio.fail_after(30), pytest.raises(WhisperdError, match="unexpectedly"):
                await pulls.start("tiny").finished()


async def test_an_app_in_the_folder_that_the_server_was_started_in_is_not_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "app" / "worker").mkdir(parents=True)
    for name in ("__init__", "worker/__init__", "worker/models"):
        (tmp_path / "app" / f"{name}.py").touch()
    folder = download(tmp_path / "hub", "Systran/faster-whisper-tiny", CTRANSLATE2)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    async with Pulls(Catalog("faster-whisper", Path("hub"), "base"), tmp_path).running() as pulls:
        with anyio.fail_after(60):
            assert await pulls.remove("tiny") > 0
    assert not folder.exists()
