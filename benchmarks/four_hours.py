"""A four-hour recording of a few MB, done over HTTP by the scripted backend: what each process holds at its most.

The file is Opus at a low rate, sentences with pauses between them, written as a stream. Looks for the HTTP process and
the decoder under 200 MB each, both together growing by 150 MB at most (HAZARDS, row 6), and the first window at the
backend a second after the upload's end at most. Ends with 1 where one is missed.

    python -m benchmarks.four_hours                    python -m benchmarks.four_hours --hours 0.2
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import httpx
import numpy as np
import psutil
from tqdm import tqdm

from benchmarks.recordings import RATE, samples
from benchmarks.server import Server, machine
from benchmarks.verdicts import Verdicts, add_json
from tests.conftest import clips

_MB = 1_000_000
#: MB that a process may hold, and that HTTP process and decoder may grow by together; seconds to the first window.
_MOST_MB, _GROWTH_MB, _FIRST_S = 200, 150, 1.0
#: Seconds of silence between two sentences.
_PAUSE_S = 1.5
_BOUNDARY = "whisperd-benchmark"
_HTTP, _DECODER, _WORKER = "HTTP process", "decoder", "worker"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=4, help="length of the recording (default 4)")
    parser.add_argument("--patience", type=float, default=1800, help="seconds that the answer may take (default 1800)")
    add_json(parser)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recording = folder / "long.opus"
        seconds = write_speech(recording, options.hours * 3600)
        found = measured(folder, recording, options.patience) | {"hours": seconds / 3600}
    sys.exit(judged(found).end(options.json))


def write_speech(target: Path, seconds: float) -> float:
    """Write sentences with pauses, ``seconds`` or a little less, as Opus at 12 kbit/s; returns the length."""
    parts = [np.concatenate([samples(clip.path), np.zeros(int(_PAUSE_S * RATE), np.int16)]) for clip in clips("en")]
    with av.open(str(target), "w", format="ogg") as container, tqdm(total=int(seconds), unit="s", desc="write") as bar:
        quickly = {"application": "voip", "compression_level": "0"}
        stream = container.add_stream("libopus", rate=RATE, layout="mono", bit_rate=12_000, options=quickly)
        at, number = 0, 0
        while at + len(parts[number % len(parts)]) <= seconds * RATE:
            part = parts[number % len(parts)]
            frame = av.AudioFrame.from_ndarray(part[None], format="s16", layout="mono")
            frame.rate, frame.pts, frame.time_base = RATE, at, Fraction(1, RATE)
            container.mux(stream.encode(frame))
            at, number = at + len(part), number + 1
            bar.update(at // RATE - bar.n)
        container.mux(stream.encode(None))
    return at / RATE


def measured(folder: Path, recording: Path, patience: float) -> dict[str, float]:
    """Have it transcribed, and look at the processes meanwhile. Sizes in MB, times in seconds."""
    log = folder / "steps"
    script = json.dumps({"log": str(log)})
    server = Server(folder / "state", "--backend", "fake", "--model", script)
    try:
        server.start()
        url = f"{server.url}/v1/audio/transcriptions"
        httpx.post(url, files={"file": clips("en")[0].path.read_bytes()}, timeout=60).raise_for_status()
        log.unlink()
        roles = {_HTTP: psutil.Process(server.pid), **_children(server)}
        before = {role: process.memory_info().rss / _MB for role, process in roles.items()}
        peak, over, sent = dict(before), threading.Event(), list[float]()

        def watch() -> None:
            while not over.wait(0.01):
                for role, process in {**roles, **_children(server)}.items():
                    peak[role] = max(peak.get(role, 0.0), _rss(process))

        watcher = threading.Thread(target=watch)
        watcher.start()
        began = time.monotonic()
        try:
            kind = {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"}
            answer = httpx.post(url, content=_body(recording, sent), headers=kind, timeout=patience)
            answer.raise_for_status()
        finally:
            over.set()
            watcher.join()
        first = json.loads(log.read_text().partition("\n")[0])["time"]
        return {
            "file_mb": recording.stat().st_size / _MB,
            "took_s": time.monotonic() - began,
            "heard_s": float(answer.json()["duration"]),
            "first_window_s": first - sent[0],
            **{f"{role}, before": size for role, size in before.items()},
            **{f"{role}, peak": size for role, size in peak.items()},
        }
    finally:
        server.stop()


def _children(server: Server) -> dict[str, psutil.Process]:
    """Decoder and worker, as far as they live."""
    found = {}
    for role, module in ((_DECODER, "app.worker.decoder"), (_WORKER, "app.worker.child")):
        for child in server.children(module):
            found[role] = child
    return found


def _rss(process: psutil.Process) -> float:
    try:
        return float(process.memory_info().rss) / _MB
    except psutil.Error:
        return 0.0


def _body(recording: Path, sent: list[float]) -> Iterator[bytes]:
    """The form; notes when its last bytes are taken."""
    part = '--{0}\r\nContent-Disposition: form-data; name="{1}"{2}\r\n\r\n'
    yield (part.format(_BOUNDARY, "response_format", "") + "verbose_json\r\n").encode()
    yield part.format(_BOUNDARY, "file", '; filename="long.opus"').encode()
    with recording.open("rb") as file:
        while block := file.read(2**16):
            yield block
    sent.append(time.monotonic())
    yield f"\r\n--{_BOUNDARY}--\r\n".encode()


def judged(found: dict[str, float]) -> Verdicts:
    """The figures beside their goals."""
    growth = sum(found[f"{role}, peak"] - found[f"{role}, before"] for role in (_HTTP, _DECODER))
    rows = [
        (f"{_HTTP}, at its most", found[f"{_HTTP}, peak"], _MOST_MB, "MB"),
        (f"{_DECODER}, at its most", found[f"{_DECODER}, peak"], _MOST_MB, "MB"),
        ("growth of both", growth, _GROWTH_MB, "MB"),
        ("first window after the upload's end", found["first_window_s"], _FIRST_S, "s"),
        ("sound lost", found["hours"] * 3600 - found["heard_s"], 1.0, "s"),
    ]
    print(machine())
    print(f"{found['hours']:.2f} h of Opus, {found['file_mb']:.1f} MB: answered after {found['took_s']:.1f} s")
    verdicts = Verdicts()
    for name, value, most, unit in rows:
        verdicts.say(6, name, f"{value:.2f} {unit}", holds=value <= most)
    print(f"  worker at its most: {found[f'{_WORKER}, peak']:.0f} MB")
    return verdicts


if __name__ == "__main__":
    main()
