"""A stand-in for the model hub on this machine: just enough of it for huggingface_hub to download from."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator

REVISION = "0123456789abcdef0123456789abcdef01234567"


class Hub(http.server.BaseHTTPRequestHandler):
    """Just enough of the hub: what a repository holds, its tree, its files."""

    repositories: dict[str, dict[str, bytes]]
    seen: list[str]
    #: Whether the line breaks in the middle of a large file.
    broken = False

    def do_GET(self) -> None:
        self.answer()

    def do_HEAD(self) -> None:
        self.answer()

    def answer(self) -> None:
        path = self.path.partition("?")[0]
        for repo, files in self.repositories.items():
            listing = [{"rfilename": name} for name in files]
            if path == f"/api/models/{repo}/revision/main":
                return self.json({"_id": "1", "id": repo, "sha": REVISION, "siblings": listing})
            if path == f"/api/models/{repo}/tree/{REVISION}":
                return self.json([{"type": "file", "path": n, "size": len(c), "oid": oid(c)} for n, c in files.items()])
            for name, content in files.items():
                if path in (f"/{repo}/resolve/{REVISION}/{name}", f"/{repo}/resolve/main/{name}"):
                    self.seen.append(f"{self.command} {name}")
                    return self.send(200, content, {"ETag": f'"{oid(content)}"', "X-Repo-Commit": REVISION})
        return self.send(404, b'{"error": "Repository not found"}', {"X-Error-Code": "RepoNotFound"})

    def json(self, data: object) -> None:
        self.send(200, json.dumps(data).encode(), {"Content-Type": "application/json"})

    def send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        begin = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        if begin:
            headers["Content-Range"] = f"bytes {begin}-{len(body) - 1}/{len(body)}"
        status, body = (206, body[begin:]) if begin else (status, body)
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[: len(body) // 2] if self.broken and len(body) > 10_000 else body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


def oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


@contextlib.contextmanager
def running_hub() -> Iterator[tuple[str, type[Hub]]]:
    """A hub of one's own: its address, and its class, whose ``repositories`` are to be filled."""

    class OneHub(Hub):
        repositories: dict[str, dict[str, bytes]] = {}  # noqa: RUF012 - one for each hub
        seen: list[str] = []  # noqa: RUF012

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), OneHub) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", OneHub
        server.shutdown()
        thread.join()
