"""How much the HTTP process grows while a large WAV is uploaded and transcribed.

python -m benchmarks.upload_memory --megabytes 200
"""

from __future__ import annotations

import argparse
import struct
import threading
import time
from collections.abc import Iterator

import httpx
import psutil

from benchmarks.server import machine, serving


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=200)
    options = parser.parse_args()
    with serving("--backend", "faster-whisper", "--model", "micro") as client:
        httpx.post(f"{client.url}/v1/audio/transcriptions", files={"file": silence(2_000_000)}, timeout=600)
        server = psutil.Process(client.pid)
        before = server.memory_info().rss
        peak, done = [before], threading.Event()

        def watch() -> None:
            while not done.is_set():
                peak[0] = max(peak[0], server.memory_info().rss)
                time.sleep(0.01)

        watcher = threading.Thread(target=watch)
        watcher.start()
        started = time.perf_counter()
        response = post_stream(f"{client.url}/v1/audio/transcriptions", options.megabytes * 2**20)
        seconds = time.perf_counter() - started
        done.set()
        watcher.join()
    print(machine())
    print(f"{options.megabytes} MiB of silent WAV: {response.status_code} in {seconds:.1f} s")
    print(f"  HTTP process: {before / 2**20:.1f} MiB before, grew {(peak[0] - before) / 2**20:.1f} MiB")


def silence(size: int) -> bytes:
    """A WAV of ``size`` zero bytes of sound, 48 kHz stereo s16."""
    return header(size) + bytes(size)


def header(size: int) -> bytes:
    """The WAV header of ``size`` bytes of 48 kHz stereo s16."""
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 2, 48_000, 192_000, 4, 16)
    return struct.pack("<4sI4s", b"RIFF", size + 36, b"WAVE") + form + struct.pack("<4sI", b"data", size)


def post_stream(url: str, size: int) -> httpx.Response:
    """Post ``size`` bytes of silence without ever holding them."""
    boundary = "whisperd-benchmark"

    def body() -> Iterator[bytes]:
        yield f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'.encode()
        yield header(size)
        block = bytes(2**16)
        for _ in range(size // len(block)):
            yield block
        yield f"\r\n--{boundary}--\r\n".encode()

    return httpx.post(
        url, content=body(), headers={"Content-Type": f"multipart/form-data; boundary={boundary}"}, timeout=600
    )


if __name__ == "__main__":
    main()
