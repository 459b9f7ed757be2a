"""A hundred thousand requests with hostile names, prompts and keys: how large the log grows, and what is in it.

    python -m benchmarks.logs                          row 31 of docs/reliability.md
    python -m benchmarks.logs --requests 2000

Most are refused before their sound is decoded, some are transcribed; every one says a secret in all that it says.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import itertools
import json
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path

import httpx
from tqdm import tqdm

from benchmarks.recordings import as_wav, numbered, samples
from benchmarks.server import Server, machine
from benchmarks.verdicts import Verdicts, add_json
from tests.conftest import clips

_URL = "/v1/audio/transcriptions"
_MOST_MB, _CALLERS = 20, 8
#: What no line may hold: in names of files, prompts, keys, paths, and as what the scripted model says.
_SECRET, _SAID = "canary4711", "kanarie"
_HOSTILE = ("\x1b[2J", "\r\nHTTP/1.1 200 OK", "\x00", "\u202e", "${jndi:ldap://x}", "%s%n", "\x07" * 50, "a" * 4000)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=100_000)
    add_json(parser)
    options = parser.parse_args()
    found = Verdicts()
    print(machine())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        script = folder / "script"
        script.write_text(json.dumps({"text": f" {_SAID} {{start}}"}))
        server = Server(
            folder / "state", "--backend", "fake", "--model", str(script), "--log-level", "info",
            "--log-file", str(folder / "log"), log=folder / "stderr",
        )  # fmt: skip
        try:
            server.start()
            statuses = asyncio.run(_ask(server.url, options.requests))
        finally:
            server.stop()
        written = b"".join(path.read_bytes() for path in sorted(folder.glob("log*")))
        size = sum(path.stat().st_size for path in (*folder.glob("log*"), folder / "stderr"))
        written += (folder / "stderr").read_bytes()
    secrets = [_SECRET, _SAID, base64.b64encode(_SECRET.encode())[:-4].decode()]
    leaked = sum(written.count(secret.encode()) for secret in secrets)
    control = sum(byte < 32 and byte != 10 for byte in written)
    figure = f"{dict(statuses)}, {size / 1e6:.1f} MB on disk, {control} control characters, {leaked} leaked words"
    fine = size <= _MOST_MB * 1e6 and not control and not leaked and max(statuses) < 500 and statuses[200] > 0
    found.say(31, f"{options.requests:,} requests", figure, holds=fine)
    return found.end(options.json)


async def _ask(url: str, count: int) -> Counter[int]:
    """Post on kept connections, by hand: a library would take most of the processor's time."""
    dice, numbers, statuses = random.Random(0), itertools.count(), Counter[int]()  # noqa: S311
    wav, address = as_wav(samples(clips("en")[0].path)[:16000]), httpx.URL(url)
    with tqdm(total=count) as bar:

        async def caller() -> None:
            reader, writer = await asyncio.open_connection(address.host, address.port)
            while (number := next(numbers)) < count:
                file = numbered(wav, number) if number % 50 == 0 else b"no sound"
                writer.write(_request(dice.choice(_HOSTILE), number, file))
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split()[0]))
                statuses[int(head.split()[1])] += 1
                bar.update()
                if b"connection: close" in head.lower():
                    writer.close()
                    reader, writer = await asyncio.open_connection(address.host, address.port)
            writer.close()

        await asyncio.gather(*(caller() for _ in range(_CALLERS)))
    return statuses


def _request(hostile: str, number: int, file: bytes) -> bytes:
    """A form whose every word is hostile; one in fifty is well but for its words, the others name no language or no
    model that there is.
    """
    kind, words = number % 50 and number % 3, f"{_SECRET} {hostile}"
    fields = {"prompt": words[:500], "language": "en" if kind == 0 else f"{_SECRET}{hostile[:20]}"}
    if kind == 2:
        fields["model"] = f"{_SECRET}{hostile[:20]}"
    name = words.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
    parts = [
        f'Content-Disposition: form-data; name="{field}"\r\n\r\n{value}'.encode() for field, value in fields.items()
    ]
    parts.append(f'Content-Disposition: form-data; name="file"; filename="{name}.wav"\r\n\r\n'.encode() + file)
    body = b"".join(b"--x\r\n" + part + b"\r\n" for part in parts) + b"--x--\r\n"
    head = f"POST {_URL}?q={_SECRET} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {_SECRET}\r\n"
    head += f"X-Request-Id: {_SECRET} no id\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


if __name__ == "__main__":
    sys.exit(main())
