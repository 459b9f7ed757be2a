"""Mutated requests to a running server: ``python -m tests.hostile.http_fuzz --url http://127.0.0.1:8000 --pid PID``.

A request is its number, as bytes on a connection that is kept until the server closes it.
"""

from __future__ import annotations

import argparse
import base64
import json
import random
import socket
import sys
import time
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache

import httpx
import psutil
from tqdm import tqdm

from tests.hostile.fuzz import mutant
from tests.hostile.media import encode, speech

#: An answer that takes longer never comes.
HANGS_S = 30
#: Requests after which memory is what it will be.
WARM_UP = 500
METHODS = ("POST",) * 120 + ("GET", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "post", "P\xd6ST", "A" * 300)
PATHS = ("/v1/audio/transcriptions",) * 12 + (
    "/v1/audio/translations",
    "/v1/audio/transcriptions/",
    "/v1/audio//transcriptions",
    "/v1/models",
    "/v1/models/whisper-1",
    "/v1/models/..%2f..%2fetc%2fpasswd",
    "/v1/jobs",
    "/v1/jobs/%00",
    "/v1/jobs/" + "a" * 3_000,
    "/v1/queue",
    "/v1/none",
    "/health",
    "/ready",
    "/metrics",
    "/../../etc/passwd",
    "/%ff%fe",
    "/docs",
    "/",
    "/web/main.js",
    "/web/%2e%2e/%ff",
    "*",
    "//evil.invalid/x",
    "http://evil.invalid/v1/models",
)
FIELDS: dict[str, tuple[str, ...]] = {
    "model": ("whisper-1", "fake", "", "../x", "a" * 2_000, "\0", "🎤"),
    "language": ("en", "xx", "", "EN", "english", "\u202e"),
    "temperature": ("0", "1", "2", "-1", "nan", "inf", "1e400", "0x1", "zero", "0" * 5_000),
    "response_format": ("json", "text", "srt", "vtt", "verbose_json", "diarized_json", "xml", ""),
    "prompt": ("Hello", "x" * 20_000, "\0\n\r", "{}"),
    "stream": ("true", "false", "1", "maybe"),
    "timestamp_granularities[]": ("word", "segment", "letter"),
    "include[]": ("logprobs", "all"),
    "chunking_strategy": ("auto", "{}", '{"type":"server_vad","threshold":9e99}', "[" * 2_000),
    "x_priority": ("background", "interactive", "now"),
    "x_heartbeat": ("1", "-1", "nan", "1e9"),
    "x_unknown": ("1",),
    "file": ("no file",),
    "__proto__": ("x",),
}
HEADERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Accept", ("*/*", "text/event-stream", "\xff", "")),
    ("Accept-Encoding", ("gzip, br", "identity;q=0", "*")),
    ("Authorization", ("Bearer x", "Bearer \xe9", "Basic", "Bearer " + "k" * 4_000)),
    ("Range", ("bytes=0-", "bytes=9-1")),
    ("Prefer", ("respond-async", "wait=-1", "respond-async, wait=nan")),
    ("Idempotency-Key", ("a", "k" * 3_000, "\xff")),
    ("X-Request-Id", ("ok", "\x7f", "i" * 3_000)),
    ("X-Stainless-Retry-Count", ("1", "-1", "x", "9" * 400)),
    ("X-Priority", ("background", "\xff")),
    ("Origin", ("null", "http://evil.invalid", "app://obsidian.md")),
    ("Host", ("localhost", "evil.invalid", "", "[::1]:x")),
    ("Sec-Fetch-Site", ("cross-site", "none")),
    ("Content-Encoding", ("gzip", "br")),
    ("Expect", ("200-maybe",)),
    ("Cookie", ("a=b; " * 500,)),
    ("Connection", ("close", "keep-alive", "Upgrade")),
    ("Upgrade", ("websocket", "h2c")),
)
TYPES = (
    "application/json",
    "audio/wav",
    "application/octet-stream",
    "application/x-www-form-urlencoded",
    "text/plain; charset=\xff",
    "multipart/mixed; boundary=b",
    "multipart/form-data",
    "multipart/form-data; boundary=" + "b" * 300,
    "multipart/form-data; boundary=\xff",
    "",
)


@cache
def good_files() -> tuple[bytes, ...]:
    return (
        encode(speech()[8_000:12_800], "flac", "flac"),
        encode(speech()[8_000:12_800], "ogg", "libopus", rate=48_000),
    )


def request(number: int) -> bytes:
    """Request ``number`` whole: one that could be good, then perhaps with one to eight of its bytes changed."""
    rng = random.Random(number)
    method, path = rng.choice(METHODS), rng.choice(PATHS)
    content_type, body = _body(rng)
    if rng.random() < 0.2:
        pairs = [(name, rng.choice(FIELDS[name])) for name in rng.choices(list(FIELDS), k=rng.randint(1, 6))]
        path += "?" + (urllib.parse.urlencode(pairs) if rng.random() < 0.8 else "%&=&&%zz=" + "a=b&" * 200)
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Type: {content_type}"]
    for name, values in rng.sample(HEADERS, rng.choice((0, 0, 1, 3))):
        lines.append(f"{name}: {rng.choice(values)}")
    if rng.random() < 0.15:
        lines.append("Transfer-Encoding: chunked")
        cuts = sorted(rng.sample(range(len(body) + 1), min(3, len(body) + 1)))
        parts = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True) if a < b]
        body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    else:
        lines.append(f"Content-Length: {len(body)}")
    head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")
    if rng.random() < 0.1:
        head = _noisy(rng, head)
    return head + body


def _noisy(rng: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.randint(1, 8) if changed else 0):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def _body(rng: random.Random) -> tuple[str, bytes]:
    """(content type, body)"""
    file = rng.choice(good_files()) if rng.random() < 0.5 else mutant(rng.randrange(1 << 30))
    names = rng.choices(list(FIELDS), k=rng.choice((0, 1, 2, 5)))
    fields = [(name, rng.choice(FIELDS[name])) for name in names]
    kind = rng.random()
    if kind < 0.6:
        body = _form(rng, fields, file)
        content_type = "multipart/form-data; boundary=b"
    elif kind < 0.8:
        given: dict[str, object] = {name.removesuffix("[]"): _guess(rng, value) for name, value in fields}
        given["input_audio"] = rng.choice(
            ({"data": base64.b64encode(file).decode(), "format": "wav"}, {"data": "=?="}, [], None, "x", {"data": {}})
        )
        body = json.dumps(given).encode()
        content_type = "application/json"
    else:
        body, content_type = file, "audio/wav"
    if rng.random() < 0.15:
        content_type = rng.choice(TYPES)
    if rng.random() < 0.2:
        body = _noisy(rng, body)
    if rng.random() < 0.1:
        body = body[: rng.randrange(len(body) + 1)]
    return content_type, body


def _form(rng: random.Random, fields: list[tuple[str, str]], file: bytes) -> bytes:
    parts = [f'Content-Disposition: form-data; name="{name}"\r\n\r\n{value}'.encode() for name, value in fields]
    name = rng.choice(("a.wav", "../../x", "", "n" * 5_000, "\0", 'q"uote', "x.m3u8"))
    parts.insert(
        rng.randint(0, len(parts)),
        f'Content-Disposition: form-data; name="file"; filename="{name}"\r\nContent-Type: audio/wav\r\n\r\n'.encode()
        + file,
    )
    if rng.random() < 0.1:
        parts *= rng.choice((2, 20))
    return b"".join(b"--b\r\n" + part + b"\r\n" for part in parts) + b"--b--\r\n"


def _guess(rng: random.Random, value: str) -> object:
    return rng.choice((value, value, [value], {"a": value}, None, 1e308, -1, True))


@dataclass
class Findings:
    answers: Counter[int] = field(default_factory=Counter)  # 0: closed without an answer
    failed: list[int] = field(default_factory=list)
    hung: list[int] = field(default_factory=list)
    growth: int = 0
    replaced: int = 0
    slowest_s: float = 0.0
    good_at_last: bool = False

    def __str__(self) -> str:
        return (
            f"answers {dict(sorted(self.answers.items()))}\n5xx {len(self.failed)} {self.failed[:20]}\n"
            f"hangs over {HANGS_S} s {len(self.hung)} {self.hung[:20]}\ngrowth {self.growth / 2**20:.1f} MiB\n"
            f"children replaced {self.replaced}\nslowest {self.slowest_s:.2f} s\nthe next good one works: "
            f"{self.good_at_last}"
        )


class Line:
    """A connection that is kept while the server keeps it."""

    def __init__(self, url: str) -> None:
        parts = urllib.parse.urlsplit(url)
        self._address = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._socket: socket.socket | None = None

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def ask(self, content: bytes) -> list[int]:
        """The statuses of what comes back; [] where the server closes without a word. Raises ``TimeoutError``.

        The sending side is closed where the server may wait for more: what was changed may be a length.
        """
        fresh = self._socket is None
        try:
            return self._ask(content)
        except (BrokenPipeError, ConnectionResetError):
            self.close()  # it was closed while nobody looked
            return [] if fresh else self.ask(content)

    def _ask(self, content: bytes) -> list[int]:
        if self._socket is None:
            self._socket = socket.create_connection(self._address, timeout=HANGS_S)
        self._socket.sendall(content)
        received, statuses = b"", []
        self._socket.settimeout(2)
        closed_ours = False
        begun = time.monotonic()
        while True:
            try:
                data = self._socket.recv(1 << 16)
            except TimeoutError:
                if time.monotonic() - begun > HANGS_S:
                    self.close()
                    raise
                if not closed_ours:
                    closed_ours = True
                    self._socket.shutdown(socket.SHUT_WR)
                continue
            received += data
            status, complete = _read(received, content, ended=not data)
            if not data:
                self.close()
                return [*statuses, status] if status else statuses
            if complete:
                statuses.append(status)
                if closed_ours or b"connection: close" in received.lower():
                    self.close()
                return statuses


def _read(received: bytes, sent: bytes, *, ended: bool) -> tuple[int, bool]:
    """(status or 0, whether the answer is whole)"""
    head, found, body = received.partition(b"\r\n\r\n")
    if not received.startswith(b"HTTP/1.1 ") or not found:
        return 0, False
    status = int(received[9:12])
    if status == 100:
        return _read(body, sent, ended=ended)
    lines = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
    if sent.startswith(b"HEAD ") or status in (204, 304):
        return status, True
    if b"content-length" in lines:
        return status, len(body) >= int(lines[b"content-length"])
    if b"chunked" in lines.get(b"transfer-encoding", b""):
        return status, body.endswith(b"0\r\n\r\n")
    return status, ended


def fuzz(url: str, pid: int | None, numbers: Iterable[int], done: Callable[[], object] = lambda: None) -> Findings:
    """Requests ``numbers`` one after the other on one kept connection. ``pid`` is the server's, for its memory."""
    findings, line = Findings(), Line(url)
    before = _replaced(url)
    base = 0
    for place, number in enumerate(numbers):
        begun = time.monotonic()
        try:
            statuses = line.ask(request(number))
        except TimeoutError:
            findings.hung.append(number)
            statuses = []
        findings.slowest_s = max(findings.slowest_s, time.monotonic() - begun)
        findings.answers[statuses[-1] if statuses else 0] += 1
        if any(status >= 500 for status in statuses):
            findings.failed.append(number)
        if place == WARM_UP:
            base = _resident(pid)
        done()
    line.close()
    findings.growth = _resident(pid) - base if base else 0
    findings.replaced = _replaced(url) - before
    answer = httpx.post(f"{url}/v1/audio/transcriptions", files={"file": good_files()[0]}, timeout=HANGS_S)
    findings.good_at_last = answer.status_code == 200
    return findings


def _resident(pid: int | None) -> int:
    return int(psutil.Process(pid).memory_info().rss) if pid else 0


def _replaced(url: str) -> int:
    lines = httpx.get(f"{url}/metrics", timeout=HANGS_S).text.splitlines()
    return sum(
        int(float(line.rsplit(" ", 1)[1])) for line in lines if line.startswith("whisperd_worker_restarts_total")
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--pid", type=int, help="the server's, to watch its memory")
    parser.add_argument("--requests", type=int, default=5_000)
    parser.add_argument("--first", type=int, default=0, help="the first request's number")
    given = parser.parse_args()
    with tqdm(total=given.requests, unit="request", mininterval=1) as bar:
        numbers = range(given.first, given.first + given.requests)
        findings = fuzz(given.url, given.pid, numbers, lambda: bar.update())
    print(findings)
    return 1 if findings.failed or findings.hung or not findings.good_at_last else 0


if __name__ == "__main__":
    sys.exit(main())
