"""The backends' texts against each other's, through the server."""

from __future__ import annotations

import pytest

from app import backends
from tests.conftest import Server, StartServer, clips, word_error_rate
from tests.e2e.test_accuracy import by_the_server


@pytest.mark.parametrize(
    "backend",
    [
        "whisper.cpp",
        pytest.param("mlx-whisper", marks=pytest.mark.mlx),
        pytest.param("openai-whisper", marks=pytest.mark.torch),
    ],
)
def test_every_backend_gives_the_texts_of_faster_whisper(
    backend: str, server: Server, start_server: StartServer
) -> None:
    if not backends.installed(backend):
        pytest.skip(f"{backend} is not installed")
    parts = clips()[::2]
    ours = by_the_server(start_server(backend=backend, model="micro"), parts)
    theirs = by_the_server(server, parts)
    differing = [(one, other) for one, other in zip(ours, theirs, strict=True) if word_error_rate([other], [one])]
    assert len(differing) <= 0.05 * len(parts), differing
    assert all(word_error_rate([other], [one]) * len(other.split()) <= 2.01 for one, other in differing), differing
