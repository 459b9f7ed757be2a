"""The chart is a picture of a size that fits its rows."""

from __future__ import annotations

import importlib.util
import struct
from pathlib import Path

import pytest

from app.bench.plan import quoted_rows
from app.bench.row import Row, Status
from app.errors import StorageFull
from tests.bench.rows import CONDITIONS, measured

pytestmark = pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="matplotlib is not installed")

ROWS = [measured("mlx-whisper", "base"), measured("whisper.cpp", "base"), Row("fake", "base", Status.NOT_RUN)]


def size_of(path: Path) -> tuple[int, int]:
    """Width and height in pixels, from the header."""
    head = path.read_bytes()[:24]
    assert head.startswith(b"\x89PNG\r\n\x1a\n")
    return struct.unpack(">II", head[16:])


def drawn(rows: list[Row], path: Path, *, with_quoted: bool = False) -> tuple[int, int]:
    from app.bench import chart

    chart.draw(CONDITIONS, "Apple M4 Pro, 14 cores", rows, path, with_quoted=with_quoted)
    return size_of(path)


def test_a_png_grows_with_its_rows(tmp_path: Path) -> None:
    width, height = drawn(ROWS, tmp_path / "chart.png")
    assert width == 1600
    quoted_width, quoted_height = drawn(
        ROWS + quoted_rows(ROWS), tmp_path / "quoted", with_quoted=True
    )  # whatever the ending
    assert quoted_width == width
    assert quoted_height > height


def test_a_chart_of_nothing_is_a_picture_too(tmp_path: Path) -> None:
    assert drawn([ROWS[2]], tmp_path / "chart.png")[0] == 1600


def test_a_place_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(StorageFull, match="chart could not be written"):
        drawn(ROWS, tmp_path / "nowhere" / "chart.png")
