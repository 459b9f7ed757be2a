"""``whisperd serve`` where the system lets few files be open."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from app.commands.serve import room


@pytest.mark.parametrize(("soft", "hard", "connections"), [(64, 64, 16), (64, 4096, 1024), (64, 1000, 250)])
def test_a_quarter_of_the_files_may_be_connections(soft: int, hard: int, connections: int) -> None:
    program = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))"
    program += "; from app.commands.serve import room; print(room(1024))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stdout) == connections


def test_a_limit_that_is_enough_stays_as_it_is() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert room(8) == 8
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before
