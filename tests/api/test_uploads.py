"""Bodies of every kind, cut in pieces at any place, against the file and form that they must become."""

from __future__ import annotations

import base64
import contextlib
import json
import stat
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.types import Message

from app.api import uploads
from app.api.form import Form, Sink
from app.api.json_body import Base64, JsonBody
from app.engine.admission import Admission, QueueLimits
from app.engine.spool import Spool
from app.errors import InvalidRequest, UploadTooLarge

MIB = 2**20


def receive(
    destination: Path,
    pieces: Iterable[bytes],
    content_type: str,
    *,
    query: str = "",
    max_bytes: int = MIB,
    length: int | None = None,
) -> Form:
    """What ``uploads.receive`` makes of a body that arrives in ``pieces``; the file is then at ``destination``."""
    headers = [(b"content-type", content_type.encode())] if content_type else []
    if length is not None:
        headers.append((b"content-length", str(length).encode()))
    scope = {"type": "http", "method": "POST", "path": "/", "headers": headers, "query_string": query.encode()}
    waiting = iter(pieces)

    async def next_piece() -> Message:
        piece = next(waiting, None)
        return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}

    spool = Spool(destination.parent / "spool")
    upload = Admission(spool, QueueLimits(jobs=1, spool_bytes=MIB, audio_s=1)).enter()
    upload.source = destination
    try:
        form = anyio.run(uploads.receive, Request(scope, next_piece), upload, max_bytes)
    finally:
        spool.close()
    assert upload.digest == sha256(destination.read_bytes()).hexdigest()
    return form


def cut(body: bytes, size: int) -> list[bytes]:
    return [body[start : start + size] for start in range(0, len(body), size)]


def as_json(audio: bytes, **fields: Any) -> bytes:
    data = base64.b64encode(audio).decode()
    return json.dumps({"model": "whisper-1", "input_audio": {"data": data, "format": "webm"}, **fields}).encode()


AUDIO = bytes(range(256)) * 7


@pytest.mark.parametrize("size", [1, 2, 3, 5, 64, 10_000])
def test_json_becomes_the_file_and_the_fields_of_a_form(tmp_path: Path, size: int) -> None:
    body = as_json(
        AUDIO,
        language=None,
        temperature=0.25,
        stream=True,
        prompt='a "quoted" \\ ü 🎧',
        timestamp_granularities=["word", "segment"],
        chunking_strategy={"type": "server_vad"},
    )
    form = receive(tmp_path / "source", cut(body, size), "application/json; charset=utf-8")
    assert (tmp_path / "source").read_bytes() == AUDIO
    assert form == Form(
        {
            "model": ["whisper-1"],
            "temperature": ["0.25"],
            "stream": ["true"],
            "prompt": ['a "quoted" \\ ü 🎧'],
            "timestamp_granularities": ["word", "segment"],
            "chunking_strategy": ['{"type": "server_vad"}'],
        },
        has_file=True,
    )
    assert stat.S_IMODE((tmp_path / "source").stat().st_mode) == 0o600


SPELLINGS = {
    "data URL": lambda text: f"data:audio/webm;codecs=opus;base64,{text}",
    "short data URL": lambda text: f"DATA:;base64,{text}",
    "no padding": lambda text: text.rstrip("="),
    "URL-safe": lambda text: text.replace("+", "-").replace("/", "_"),
    "lines": lambda text: "\n".join(text[start : start + 76] for start in range(0, len(text), 76)),
    "plain": lambda text: text,
}


@pytest.mark.parametrize("spell", SPELLINGS.values(), ids=SPELLINGS)
@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 1000])
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_base64_comes_in_many_spellings(tmp_path: Path, spell: Any, length: int, size: int) -> None:
    data = spell(base64.b64encode(AUDIO[-length:]).decode())
    body = json.dumps({"input_audio": {"data": data}}).encode()
    receive(tmp_path / "source", cut(body, size), "application/json")
    assert (tmp_path / "source").read_bytes() == AUDIO[-length:]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7, 1000])
def test_the_escapes_of_php_and_dotnet_are_undone(tmp_path: Path, size: int) -> None:
    audio = b"\xfb\xef\xbe\xff\xff\xff" * 50
    data = base64.b64encode(audio).decode()
    assert "+" in data
    assert "/" in data
    escaped = data.replace("/", "\\/").replace("+", "\\u002B")
    receive(tmp_path / "source", cut(f'{{"input_audio":{{"data":"{escaped}"}}}}'.encode(), size), "application/json")
    assert (tmp_path / "source").read_bytes() == audio


@pytest.mark.parametrize(
    "data",
    ["AAAA=AAA", "A", "AAA!", "AA==AAAA", "ä", "data:audio/webm,AAAA", "data:", "data:" + "x" * 1000, "AAAA\\", '\\"'],
)
@pytest.mark.parametrize("size", [1, 1000])
def test_what_is_no_base64_names_input_audio(tmp_path: Path, data: str, size: int) -> None:
    body = json.dumps({"input_audio": {"data": data}}).encode()
    with pytest.raises(InvalidRequest) as caught:
        receive(tmp_path / "source", cut(body, size), "application/json")
    assert caught.value.param == "input_audio"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"input_audio"',
        b'{"input_audio": {"data": "AAAA',
        b'{"input_audio": {"data": "AAAA"}',
        b'{"input_audio" {"data": "AAAA"}}',
        b'{"input_audio": {"data": "AAAA"}} {}',
        b'{"input_audio": {"data": "AAAA"}, "temperature": NaN}',
        b'{"input_audio": {"data": "AAAA"}, "prompt": "\xff"}',
        b'{"input_audio": {"data": "AAAA"}, "\\x": 1}',
        b'{"input_audio": {"data": "AAAA"}, "n": ' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"}]}]",
        b'"input_audio"',
        b"[]",
        b"{}",
        b'{"input_audio": null}',
        b'{"input_audio": "AAAA"}',
        b'{"input_audio": {"data": null}}',
        b'{"input_audio": {"data": ["AAAA"]}}',
        b'{"data": "AAAA"}',
        b'{"x": {"input_audio": {"data": "AAAA"}}}',
        b'{"input_audio": {"data": "AAAA", "data": "AAAA"}}',
        b'{"input_audio": {"data": "AAAA"}, "x": [' + b"1," * 100 + b"1]}",
        '{"input_audio": {"data": "AAAA"}}'.encode("utf-16"),
    ],
)
@pytest.mark.parametrize("size", [1, 100_000])
def test_other_json_is_an_invalid_request(tmp_path: Path, body: bytes, size: int) -> None:
    with pytest.raises(InvalidRequest) as caught:
        receive(tmp_path / "source", cut(body, size), "application/json")
    assert caught.value.status == 400
    assert caught.value.message.endswith(".")


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    document=st.dictionaries(st.text().filter(lambda name: name != "input_audio"), JSON_VALUES, max_size=5),
    audio=st.binary(),
    ascii_only=st.booleans(),
    first=st.booleans(),
    data=st.data(),
)
def test_any_document_cut_anywhere_gives_its_audio_and_its_fields(
    document: dict[str, Any], audio: bytes, ascii_only: bool, first: bool, data: st.DataObject
) -> None:
    inside = {"format": "webm", "data": base64.b64encode(audio).decode()}
    whole = {"input_audio": inside, **document} if first else {**document, "input_audio": inside}
    body = json.dumps(whole, ensure_ascii=ascii_only).encode("utf-8", "replace")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=8)))
    sink = Sink(MIB)
    parser = JsonBody(sink)
    for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True):
        parser.write(body[start:end])
    parser.finish()
    assert sink.take() == audio
    expected = {name.removesuffix("[]") for name, value in document.items() if value not in (None, [])}
    assert {name.encode("utf-8", "replace") for name in parser.form.fields} == {
        name.encode("utf-8", "replace") for name in expected
    }


@given(st.binary())
def test_any_bytes_as_json_are_read_or_refused(body: bytes) -> None:
    parser = JsonBody(Sink(MIB))
    with contextlib.suppress(InvalidRequest):
        parser.write(b'{"input_audio":{"data":"' + body)
        parser.finish()


def test_base64_holds_no_more_than_a_piece() -> None:
    decoder = Base64()
    for _ in range(1000):
        assert len(decoder.write(b"AAAA" * 100)) == 300


def test_json_is_too_large_while_it_arrives(tmp_path: Path) -> None:
    def endless() -> Iterable[bytes]:
        yield b'{"input_audio":{"data":"'
        for number in range(1000):
            assert number < 30, "nobody stopped it"
            yield b"AAAA" * 16_384

    with pytest.raises(UploadTooLarge):
        receive(tmp_path / "source", endless(), "application/json")


@pytest.mark.parametrize("filler", [b" ", b"\\n"])
@pytest.mark.parametrize("place", [b'{"input_audio":{"data":"', b"{", b'{"prompt":"'])
def test_a_body_of_nothing_ends_too(tmp_path: Path, place: bytes, filler: bytes) -> None:
    def endless() -> Iterable[bytes]:
        yield place
        for number in range(1000):
            assert number < 60, "nobody stopped it"
            yield filler * 65_536

    with pytest.raises(InvalidRequest):
        receive(tmp_path / "source", endless(), "application/json")


@pytest.mark.parametrize("content_type", ["audio/mpeg", "application/json", "multipart/form-data; boundary=x", ""])
def test_an_announced_length_over_the_limit_is_refused_unread(tmp_path: Path, content_type: str) -> None:
    def never() -> Iterable[bytes]:
        raise AssertionError("read")
        yield b""

    with pytest.raises(UploadTooLarge):
        receive(tmp_path / "source", never(), content_type, length=10 * MIB)


def test_raw_audio_is_too_large_while_it_arrives(tmp_path: Path) -> None:
    receive(tmp_path / "source", [bytes(MIB)], "audio/wav")
    with pytest.raises(UploadTooLarge):
        receive(tmp_path / "source", [bytes(MIB), b"\0"], "audio/wav")


@pytest.mark.parametrize("size", [1, 100, 10_000])
@pytest.mark.parametrize(
    "content_type",
    [
        "audio/mpeg",
        "audio/webm;codecs=opus",
        "video/mp4",
        "application/octet-stream",
        "application/ogg",
        "application/x-www-form-urlencoded",
        "text/plain",
        "image/png",
        "nonsense",
        "",
    ],
)
def test_a_raw_body_is_the_file_whatever_its_type(tmp_path: Path, content_type: str, size: int) -> None:
    form = receive(tmp_path / "source", cut(AUDIO, size), content_type, query="language=de&prompt=a+b%20c")
    assert (tmp_path / "source").read_bytes() == AUDIO
    assert form == Form({"language": ["de"], "prompt": ["a b c"]}, has_file=True)


def test_json_under_curls_own_content_type_is_json(tmp_path: Path) -> None:
    form = receive(tmp_path / "source", [b" \n" + as_json(AUDIO)], "application/x-www-form-urlencoded")
    assert (tmp_path / "source").read_bytes() == AUDIO
    assert form.last("model") == "whisper-1"


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/x-www-form-urlencoded", b"model=whisper-1&file=%40x.mp3"),
        ("application/x-www-form-urlencoded", b"model=whisper-1&prompt=" + b"x" * 2000),
        ("text/plain", b"Dear Sir or Madam"),
        ("multipart/form-data", AUDIO),
        ("multipart/mixed; boundary=x", AUDIO),
        ("", b""),
    ],
)
def test_a_body_without_audio_is_a_400_about_the_file(tmp_path: Path, content_type: str, body: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        receive(tmp_path / "source", [body] if body else [], content_type)
    assert caught.value.param == "file"


def test_fields_of_the_body_win_over_the_query_string(tmp_path: Path) -> None:
    form = receive(
        tmp_path / "source",
        [as_json(AUDIO, languages=["de"])],
        "application/json",
        query="model=tiny&languages[]=fr&languages=es&prompt=p&keywords[]=a&keywords[]=b",
    )
    assert form.fields == {"model": ["whisper-1"], "languages": ["de"], "prompt": ["p"], "keywords": ["a", "b"]}


def test_a_field_that_is_too_long_is_named(tmp_path: Path) -> None:
    head = b'--x\r\nContent-Disposition: form-data; name="known_speaker_references[]"\r\n\r\n'
    with pytest.raises(InvalidRequest) as caught:
        receive(tmp_path / "source", [head, b"A" * MIB], "multipart/form-data; boundary=x")
    assert caught.value.param == "known_speaker_references"
