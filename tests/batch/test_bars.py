from __future__ import annotations

import pytest

from app.batch.bars import about


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "1 s"), (59.4, "59 s"), (59.7, "1 min"), (150, "2 min"), (3599, "1 h 0 min"), (5400, "1 h 30 min")],
)
def test_a_time_is_said_as_people_do(seconds: float, said: str) -> None:
    assert about(seconds) == said
