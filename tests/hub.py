"""A stand-in for the model hub on this machine: just enough of it for huggingface_hub to download from."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator

REVISION = "0123456789abcdef0123456789abcdef01234567"


#: Files from this size on are in LFS, as are the hub's weights.
LARGE = 10_000
#: The file that goes wrong.
WEIGHTS = "model.bin"


class Hub(http.server.BaseHTTPRequestHandler):
    """Just enough of the hub: what a repository holds, its files, and what goes wrong with them."""

    repositories: dict[str, dict[str, bytes]]
    #: Requests for files: method, name, first byte asked for.
    seen: list[tuple[str, str, int]]
    #: How many answers with the weights still break off: from the beginning in the middle, later ones at once.
    cuts = 0
    #: How many answers with the weights still are other bytes than the checksum says.
    damaged = 0
    #: How many bytes of the weights go out before the line falls silent until ``release``.
    silent_after: int | None = None
    release: threading.Event
    #: Whether it says checksums of each file only, as some mirrors do.
    terse = False
    #: Whether it ignores ``Range``.
    whole = False
    #: What it answers instead of files.
    status = 200
    #: Whether files come from another host, as the hub's large ones do; and the tokens that each host was shown.
    elsewhere = False
    tokens: set[tuple[str, str]]
    #: A file's size as it is said to be.
    sizes: dict[str, int]

    def do_GET(self) -> None:
        self.answer()

    def do_HEAD(self) -> None:
        self.answer()

    def answer(self) -> None:
        path, host = self.path.partition("?")[0], self.headers["Host"]
        if token := self.headers.get("Authorization"):
            self.tokens.add((host, token))
        if self.elsewhere and "/resolve/" in path and host.startswith("127.0.0.1"):
            return self.send(302, b"", {"Location": f"http://{host.replace('127.0.0.1', 'localhost')}{path}"})
        for repo, files in self.repositories.items():
            if path == f"/api/models/{repo}/revision/main":
                return self.json({"_id": "1", "id": repo, "sha": REVISION, "siblings": self.siblings(files)})
            for name, content in files.items():
                if path in (f"/{repo}/resolve/{REVISION}/{name}", f"/{repo}/resolve/main/{name}"):
                    return self.file(name, content)
        return self.send(404, b'{"error": "Repository not found"}', {"X-Error-Code": "RepoNotFound"})

    def siblings(self, files: dict[str, bytes]) -> list[dict[str, object]]:
        if self.terse:
            return [{"rfilename": name} for name in files]
        listed = []
        for name, content in files.items():
            size = self.sizes.get(name, len(content))
            entry: dict[str, object] = {"rfilename": name, "size": size, "blobId": git_sum(content)}
            if len(content) >= LARGE:
                entry["lfs"] = {"sha256": checksum(content), "size": size, "pointerSize": 130}
            listed.append(entry)
        return listed

    def file(self, name: str, content: bytes) -> None:
        begin = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        self.seen.append((self.command, name, begin))
        headers = {"ETag": f'"{checksum(content)}"', "X-Repo-Commit": REVISION}
        if self.status != 200:
            return self.send(self.status, b"", {})
        body = content
        if name == WEIGHTS and self.command == "GET" and self.damaged:
            type(self).damaged -= 1
            body = content[:-1] + bytes([content[-1] ^ 1])
        begin = 0 if self.whole else begin
        if begin:
            headers["Content-Range"] = f"bytes {begin}-{len(body) - 1}/{len(body)}"
        return self.send(206 if begin else 200, body[begin:], headers, fails=name == WEIGHTS)

    def json(self, data: object) -> None:
        self.send(200, json.dumps(data).encode(), {"Content-Type": "application/json"})

    def send(self, status: int, body: bytes, headers: dict[str, str], *, fails: bool = False) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "GET":
            return
        if fails and self.cuts:
            type(self).cuts -= 1
            body = b"" if status == 206 else body[: len(body) // 2]
        if fails and self.silent_after is not None:
            self.wfile.write(body[: self.silent_after])
            self.release.wait(60)
            return
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # a client that went away
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


def git_sum(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def checksum(content: bytes) -> str:
    """What the hub calls a file's content by."""
    return hashlib.sha256(content).hexdigest() if len(content) >= LARGE else git_sum(content)


@contextlib.contextmanager
def running_hub() -> Iterator[tuple[str, type[Hub]]]:
    """A hub of one's own: its address, and its class, whose ``repositories`` are to be filled."""

    class OneHub(Hub):
        repositories: dict[str, dict[str, bytes]] = {}  # noqa: RUF012 - one for each hub
        seen: list[tuple[str, str, int]] = []  # noqa: RUF012
        sizes: dict[str, int] = {}  # noqa: RUF012
        tokens: set[tuple[str, str]] = set()  # noqa: RUF012
        release = threading.Event()

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), OneHub) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", OneHub
        OneHub.release.set()
        server.shutdown()
        thread.join()
