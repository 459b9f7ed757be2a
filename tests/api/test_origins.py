"""Which names this server answers to, and which pages may use it: HTTP as a browser would send it, byte by byte."""

from __future__ import annotations

import http.client
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.conftest import Server, StartServer, clips, script_of

CLIP = clips("en000")[0]


@pytest.fixture(scope="module")
def guarded(start_server: StartServer, tmp_path_factory: pytest.TempPathFactory) -> Server:
    script = script_of(tmp_path_factory.mktemp("fake"))
    return start_server(
        backend="fake",
        model=script,
        allowed_hosts="whisper.example.org, *.mine.example",
        cors_origins="https://notes.example",
    )


def send(
    server: Server, method: str, path: str, headers: dict[str, str], body: bytes = b""
) -> tuple[int, str, dict[str, str]]:
    """Status, text and headers (lower case) of a request with these headers and no other, but for the length."""
    address = urlsplit(server.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value.replace("PORT", str(address.port)).encode("latin-1"))
    if body:
        connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body or None)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text, {name.lower(): value for name, value in answer.getheaders()}


OURS = [
    "127.0.0.1:PORT",
    "127.0.0.1",
    "localhost:PORT",
    "LOCALHOST",
    "localhost.",
    "app.localhost",
    "[::1]:PORT",
    "[::1]",
    "[fe80::1]:9447",
    "192.168.1.20:PORT",
    "10.0.0.7",
    "macmini",
    "macmini.local:PORT",
    "Mac-mini-von-Ada.local",
    "host.docker.internal:9447",
    "mac.home.arpa",
    "whisper.example.org",
    "WHISPER.example.org:443",
    "whisper.example.org.",
    "a.mine.example",
    "a.b.mine.example:80",
]
NOT_OURS = [
    "evil.com",
    "evil.com:PORT",
    "localhost.evil.com",
    "127.0.0.1.evil.com",
    "127.0.0.1.nip.io:PORT",
    "example.org",
    "xwhisper.example.org",
    "whisper.example.org.evil.com",
    "mine.example",
    "xmine.example",
    "a.mine.example.com",
    "local.evil.com",
    "evil-local.com",
    "notes.example",
    "",
    ".local.com",
    "127.0.0.1:PORT@evil.com",
    "evil.com/127.0.0.1",
    "[::1].evil.com",
    "a b.local",
    "x.local:port",
]


@pytest.mark.parametrize("host", OURS)
def test_a_name_of_ours_is_answered(guarded: Server, host: str) -> None:
    assert send(guarded, "GET", "/v1/models", {"Host": host})[0] == 200


@pytest.mark.parametrize("host", NOT_OURS)
def test_another_name_is_a_403_that_names_the_setting(guarded: Server, host: str) -> None:
    for path in ("/v1/models", "/health", "/"):
        status, text, headers = send(guarded, "GET", path, {"Host": host})
        assert (status, '"code":"forbidden"' in text.replace(" ", "")) == (403, True)
        assert "WHISPERD_ALLOWED_HOSTS" in text
        assert headers["x-request-id"]


def test_a_page_that_rebinds_its_name_gets_nothing_even_from_its_own_origin(guarded: Server) -> None:
    headers = {"Host": "evil.com:PORT", "Origin": "http://evil.com:PORT", "Sec-Fetch-Site": "same-origin"}
    assert send(guarded, "GET", "/v1/queue", headers)[0] == 403
    assert send(guarded, "POST", "/v1/audio/transcriptions", headers, b"x")[0] == 403


WELCOME: list[dict[str, str]] = [
    {},
    {"Sec-Fetch-Site": "none"},
    {"Origin": "http://127.0.0.1:PORT"},
    {"Origin": "http://127.0.0.1:PORT", "Sec-Fetch-Site": "same-origin"},
    {"Origin": "https://127.0.0.1:PORT"},
    {"Origin": "app://obsidian.md", "Sec-Fetch-Site": "cross-site"},
    {"Origin": "capacitor://localhost"},
    {"Origin": "https://notes.example", "Sec-Fetch-Site": "cross-site"},
]
UNWELCOME: list[dict[str, str]] = [
    {"Origin": "https://evil.com", "Sec-Fetch-Site": "cross-site"},
    {"Origin": "http://evil.com"},
    {"Origin": "null"},
    {"Origin": ""},
    {"Origin": "http://127.0.0.1"},
    {"Origin": "http://127.0.0.1:1"},
    {"Origin": "http://127.0.0.1:PORT.evil.com"},
    {"Origin": "http://localhost:3000", "Sec-Fetch-Site": "same-site"},
    {"Origin": "https://notes.example.evil.com"},
    {"Origin": "http://notes.example"},
    {"Origin": "file://"},
    {"Origin": "chrome-extension://abcdefghijklmnop"},
    {"Origin": "app://other"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
]


def form() -> tuple[bytes, str]:
    """A form that any page may post without asking first: a "simple" request."""
    body = (
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        + CLIP.path.read_bytes()
        + b"\r\n--x--\r\n"
    )
    return body, "multipart/form-data; boundary=x"


@pytest.mark.parametrize("headers", WELCOME)
def test_who_is_no_foreign_page_may_post(guarded: Server, headers: dict[str, str]) -> None:
    body, kind = form()
    given = {"Host": "127.0.0.1:PORT", "Content-Type": kind, **headers}
    assert send(guarded, "POST", "/v1/audio/transcriptions", given, body)[0] == 200


@pytest.mark.parametrize("headers", UNWELCOME)
def test_a_foreign_page_changes_nothing_and_reads_nothing(guarded: Server, headers: dict[str, str]) -> None:
    body, kind = form()
    given = {"Host": "127.0.0.1:PORT", "Content-Type": kind, **headers}
    status, text, answer = send(guarded, "POST", "/v1/audio/transcriptions", given, body)
    assert status == 403
    assert "WHISPERD_CORS_ORIGINS" in text
    assert "access-control-allow-origin" not in answer
    assert send(guarded, "DELETE", "/v1/queue/x", given)[0] == 403
    status, _, answer = send(guarded, "GET", "/v1/models", given)
    assert status == 200, "a link may lead here"
    assert "access-control-allow-origin" not in answer, "and what it leads to is not for the page"


def test_a_star_lets_every_name_and_every_page_in(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(backend="fake", model=script_of(tmp_path), allowed_hosts="*", cors_origins="*")
    body, kind = form()
    headers = {"Host": "evil.com", "Origin": "https://evil.com", "Content-Type": kind}
    status, _, answer = send(server, "POST", "/v1/audio/transcriptions", headers, body)
    assert (status, answer["access-control-allow-origin"]) == (200, "*")
    server.stop()


def test_a_client_of_http_1_0_need_not_name_anybody(guarded: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http.client.HTTPConnection, "_http_vsn", 10)
    monkeypatch.setattr(http.client.HTTPConnection, "_http_vsn_str", "HTTP/1.0")
    assert send(guarded, "GET", "/health", {})[0] == 200
