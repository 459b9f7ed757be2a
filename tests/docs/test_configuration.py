from __future__ import annotations

from pathlib import Path

import pytest

from app.settings import load_settings
from tests.docs.configuration import EXAMPLE, PAGE, page


def test_the_page_is_that_of_the_settings() -> None:
    assert PAGE.read_text() == page(), "python -m tests.docs.configuration"


def test_the_example_is_a_file_that_can_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.toml"
    path.write_text(EXAMPLE)
    monkeypatch.setenv("WHISPERD_CONFIG", str(path))
    settings = load_settings()
    assert (settings.host, settings.model, settings.keep_warm_s) == ("0.0.0.0", "large-v3-turbo", 900)
    assert settings.models == {"ours": Path("/Users/me/models/fine-tuned")}
    assert load_settings(host="127.0.0.1").host == "127.0.0.1", "a flag goes first"
