from __future__ import annotations

import numpy as np
import pytest

from app.audio import vad
from app.audio.vad import EnergyDetector, SileroDetector, make_detector
from app.audio.windows import FRAME, WindowCutter

DETECTORS = (SileroDetector, EnergyDetector)


def hear(detector, samples, sizes=()):
    """(probabilities, energies) of the whole, fed in pieces of ``sizes`` and then the rest."""
    detector.reset()
    found, begin = [], 0
    for size in sizes:
        found.append(detector.feed(samples[begin : begin + size]))
        begin += size
    found += [detector.feed(samples[begin:]), detector.finish()]
    return tuple(np.concatenate(parts) for parts in zip(*found, strict=True))


def windows_of(detector, samples):
    cutter = WindowCutter()
    probabilities, energies = hear(detector, samples)
    return cutter.feed(probabilities.tolist(), energies.tolist()) + cutter.finish(len(samples))


@pytest.fixture(scope="module", params=DETECTORS, ids=lambda kind: kind.__name__)
def detector(request):
    return request.param()


@pytest.fixture(scope="module")
def silero():
    return SileroDetector()


@pytest.mark.parametrize("sizes", [(1,) * 40, (511, 1, 512, 513), (100_000, 3, 77_777), (0, 0, 5)])
def test_hearing_in_pieces_gives_what_hearing_the_whole_gives(detector, sizes, minute) -> None:
    whole = hear(detector, minute[:300_001])
    pieces = hear(detector, minute[:300_001], sizes)
    np.testing.assert_allclose(pieces[0], whole[0], atol=1e-4)
    np.testing.assert_allclose(pieces[1], whole[1], atol=1e-9)


def test_there_is_a_figure_for_every_frame_begun(detector, minute) -> None:
    for samples in (0, 1, FRAME - 1, FRAME, FRAME + 1, 10 * FRAME):
        probabilities, energies = hear(detector, minute[:samples])
        assert len(probabilities) == len(energies) == -(-samples // FRAME)
        assert probabilities.dtype == energies.dtype == np.float32
        assert ((probabilities >= 0) & (probabilities <= 1)).all()


def test_a_reset_forgets_the_recording_before(detector, minute) -> None:
    first, _ = hear(detector, minute[:50_000])
    detector.feed(minute[50_001:90_000])
    again, _ = hear(detector, minute[:50_000])
    np.testing.assert_array_equal(first, again)


def test_at_least_nine_tenths_of_every_clip_are_in_a_window(silero, clips, clip) -> None:
    for name in clips:
        samples = clip(name)
        held = sum(window.end - window.start for window in windows_of(silero, samples))
        assert held >= 0.9 * len(samples), name


def test_the_energy_detector_loses_no_clip_either(clips, clip) -> None:
    for name in clips[::8]:
        samples = clip(name)
        held = sum(window.end - window.start for window in windows_of(EnergyDetector(), samples))
        assert held >= 0.9 * len(samples), name


def quiet_sounds():
    random = np.random.default_rng(3)
    second = np.arange(160_000) / 16_000
    yield "digital silence", np.zeros(160_000)
    yield "dither", random.integers(-1, 2, 160_000)
    yield "white noise", random.normal(0, 1000, 160_000)
    yield "brown noise", np.clip(np.cumsum(random.normal(0, 30, 160_000)), -20_000, 20_000)
    yield "mains hum", 3000 * np.sin(2 * np.pi * 50 * second)
    yield "a tone", 8000 * np.sin(2 * np.pi * 440 * second)
    yield "full scale clipping", 32_767 * np.sign(np.sin(2 * np.pi * 1000 * second))


@pytest.mark.parametrize(
    ("name", "samples"), list(quiet_sounds()), ids=lambda value: value if type(value) is str else ""
)
def test_silence_noise_and_tones_make_no_windows(silero, name, samples) -> None:
    assert windows_of(silero, samples.astype(np.int16)) == []


def test_digital_silence_makes_no_windows_by_energy() -> None:
    assert windows_of(EnergyDetector(), np.zeros(160_000, np.int16)) == []


def test_without_onnxruntime_the_energy_detector_is_used(monkeypatch) -> None:
    assert isinstance(make_detector(), SileroDetector)
    monkeypatch.setattr(vad, "find_spec", lambda name: None)
    assert isinstance(make_detector(), EnergyDetector)
