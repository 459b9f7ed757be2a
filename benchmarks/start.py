"""How long a server takes until it is ready, against the library's own import and load, and how soon it is warm.

    python -m benchmarks.start                           micro
    python -m benchmarks.start --model DIR               your model in CTranslate2's format

Rounds alternate. The first answers of a fresh server are compared with its later ones, on recordings of about one
length. The library is loaded as its README says, by a Python of its own, whose start counts too.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tqdm import tqdm

from benchmarks.library import folder_of
from benchmarks.server import Client, Server, machine, parser_of
from tests.conftest import clips

_LOAD = "import sys, faster_whisper; faster_whisper.WhisperModel(sys.argv[1], device='cpu', compute_type='int8')"
#: Recordings sent to a fresh server.
_ANSWERS = 10


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if options.backend != "faster-whisper":
        parser.error("only faster-whisper is compared")
    folder = folder_of(options.model, options.backend)
    recordings = [clip.path for clip in clips("en")[:_ANSWERS]]
    library, ready, answers = list[float](), list[float](), list[list[float]]()
    for _ in tqdm(range(options.rounds)):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", _LOAD, str(folder)], check=True)
        library.append(time.perf_counter() - started)
        seconds, taken = _fresh(options.model, recordings)
        ready.append(seconds)
        answers.append(taken)
    first, later = [each[0] for each in answers], [one for each in answers for one in each[1:]]
    print(machine())
    print(f"faster-whisper, {options.model}, {options.rounds} rounds, medians (least to most)")
    for name, times in (
        ("library loaded", library),
        ("server ready", ready),
        ("first answer", first),
        ("later answers", later),
    ):
        print(f"  {name:14} {statistics.median(times):6.3f} s ({min(times):.3f} to {max(times):.3f})")


def _fresh(model: str, recordings: list[Path]) -> tuple[float, list[float]]:
    """Seconds until a new server is ready, and those of its first answers."""
    with tempfile.TemporaryDirectory() as state:
        server = Server(Path(state), "--backend", "faster-whisper", "--device", "cpu", "--model", model)
        try:
            started = time.perf_counter()
            server.start()
            ready = time.perf_counter() - started
            client, taken = Client(server.url, server.pid), list[float]()
            for recording in recordings:
                started = time.perf_counter()
                client.transcribe(recording, language="en")
                taken.append(time.perf_counter() - started)
            client.close()
            return ready, taken
        finally:
            server.stop()


if __name__ == "__main__":
    main()
