"""When the first text of a streamed answer comes, as a share of the whole request's time; medians of several runs.

python -m benchmarks.first_delta                          five minutes of joined clips, micro, faster-whisper
python -m benchmarks.first_delta --model DIR --audio F    your model and recording
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import httpx

from benchmarks.server import Client, machine, parser_of, serving
from tests.conftest import clips, join_clips


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--audio", type=Path, help="recording to send (default: joined test clips)")
    parser.add_argument("--minutes", type=float, default=5, help="length of the joined clips")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()

    with (
        tempfile.TemporaryDirectory() as folder,
        serving("--backend", options.backend, "--model", options.model) as client,
    ):
        path = options.audio or joined(options.minutes, Path(folder) / "joined.wav")
        measure(client, path)  # warms every cache on the way
        times = [measure(client, path) for _ in range(options.rounds)]
    first, whole = (statistics.median(column) for column in zip(*times, strict=True))
    share = statistics.median(first / whole for first, whole in times)
    print(machine())
    print(f"{options.backend}, {options.model}: first delta after {first:.2f} s of {whole:.2f} s, {100 * share:.1f} %")


def joined(minutes: float, path: Path) -> Path:
    """English clips joined to a WAV file of about so many minutes."""
    parts, wanted = [], 60 * minutes
    while wanted > 0:
        for clip in clips("en"):
            parts.append(clip)
            wanted -= clip.duration + 0.5
            if wanted <= 0:
                break
    join_clips(parts, path)
    return path


def measure(client: Client, path: Path) -> tuple[float, float]:
    """Seconds from the request's start to its first delta, and to its end."""
    first = None
    with path.open("rb") as file:
        started = time.perf_counter()
        with httpx.stream(
            "POST",
            f"{client.url}/v1/audio/transcriptions",
            files={"file": file},
            data={"stream": "true"},
            timeout=3600,
        ) as response:
            response.raise_for_status()
            for line in response.iter_lines():
                if first is None and "transcript.text.delta" in line:
                    first = time.perf_counter() - started
        whole = time.perf_counter() - started
    if first is None:
        raise SystemExit("the answer held no text")
    return first, whole


if __name__ == "__main__":
    main()
