"""What a library keeps for speed: bounded while it works, given back between jobs, and seen.

MLX's figures are those of its process, so these tests run it in their own, without ``Remote``: on short windows only.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from app import convert
from app.backends import mlx_whisper
from app.backends.base import Backend, LoadOptions, Memory
from app.backends.mlx_whisper import CACHE_BYTES, MlxWhisper
from app.transcript import SAMPLE_RATE, Options, Window
from tests.backends.test_contract import MICRO, model_cache, pcm_of, transcribe_all, whole
from tests.conftest import clips

__all__ = ["model_cache"]

#: As good as none: what MLX's own limit is like on a GPU.
NO_LIMIT = 1 << 50


class Plain(Backend):
    """A backend with nothing to give back."""

    def load(self, model_path, options):
        raise NotImplementedError

    def transcribe(self, pcm, windows, options):
        raise NotImplementedError


def test_a_backend_may_have_nothing_to_give_back():
    assert Plain().rest() == Memory(active=0, cached=0, peak=0)


@pytest.fixture
def mx():
    """MLX, whose settings and cache are left as they were found."""
    pytest.importorskip("mlx_whisper")
    mx = pytest.importorskip("mlx.core")
    device, limit = mx.default_device(), mx.set_cache_limit(NO_LIMIT)
    mx.clear_cache()
    yield mx
    mx.set_default_device(device)
    mx.set_cache_limit(limit)
    mx.clear_cache()


def load(model_cache):
    backend = MlxWhisper()
    backend.load(str(convert.ensure(MICRO, "mlx", model_cache)), LoadOptions(device="cpu"))
    return backend


def work(backend, *seconds):
    """A job with a window of noise of each length, decoded once."""
    pcm = np.random.default_rng(0).normal(0, 30, max(seconds) * SAMPLE_RATE).astype(np.int16)
    for end in (each * SAMPLE_RATE for each in seconds):
        backend.transcribe(pcm, [Window(0, end, ((0, end),), end)], Options(language="en", temperature=0.2))


@pytest.mark.mlx
def test_a_rest_empties_the_cache_and_says_what_is_left(mx, model_cache):
    backend = load(model_cache)
    work(backend, 1, 2, 3)
    assert mx.get_cache_memory() > 1_000_000
    memory = backend.rest()
    assert mx.get_cache_memory() == memory.cached < 100_000
    weights = (MICRO / "model.safetensors").stat().st_size
    assert mx.get_active_memory() == memory.active > weights
    assert all(type(getattr(memory, field.name)) is int for field in dataclasses.fields(memory))


@pytest.mark.mlx
def test_jobs_leave_nothing_behind(mx, model_cache):
    backend = load(model_cache)
    work(backend, 1)
    first = backend.rest()
    work(backend, 2, 3)
    assert backend.rest().active == pytest.approx(first.active, abs=100_000)


@pytest.mark.mlx
def test_the_peak_is_that_of_the_job_before(mx, model_cache):
    backend = load(model_cache)
    work(backend, 3)
    large = backend.rest()
    work(backend, 1)
    small = backend.rest()
    idle = backend.rest()
    assert large.peak > small.peak > idle.peak == idle.active


@pytest.mark.mlx
def test_a_rest_changes_no_text(mx, model_cache):
    backend = load(model_cache)
    clip = clips("en003")[0]
    pcm = pcm_of(clip.path)
    before = transcribe_all(backend, pcm, whole(pcm))
    backend.rest()
    assert before == clip.text == transcribe_all(backend, pcm, whole(pcm))


@pytest.mark.mlx
@pytest.mark.parametrize(("own", "limit"), [(NO_LIMIT, CACHE_BYTES), (1_000_000, 1_000_000)])
def test_the_caches_limit_is_set_at_load_and_never_raised(mx, model_cache, own, limit):
    mx.set_cache_limit(own)
    load(model_cache)
    assert mx.set_cache_limit(own) == limit


@pytest.mark.mlx
def test_the_cache_stays_within_its_limit_whatever_lengths_come(mx, model_cache, monkeypatch):
    limit = 8_000_000
    monkeypatch.setattr(mlx_whisper, "CACHE_BYTES", limit)
    backend = load(model_cache)
    work(backend, 1, 2, 3)
    # Metal looks at its limit only when it needs a buffer that it has not kept.
    held = mx.zeros(20_000_000)
    mx.eval(held)
    assert mx.get_cache_memory() <= limit
    mx.set_cache_limit(NO_LIMIT)
    work(backend, 1, 2, 3)
    assert mx.get_cache_memory() > limit, "the work needs no more: the limit was not put to the test"
