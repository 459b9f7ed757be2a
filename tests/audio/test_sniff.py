from __future__ import annotations

import io
import struct

import pytest

from app.audio.sniff import sniff
from app.errors import UndecodableAudio, UnsupportedAudio


def refusal(content: bytes) -> str:
    with pytest.raises((UnsupportedAudio, UndecodableAudio)) as caught:
        sniff(io.BytesIO(content))
    return caught.value.message


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "a PNG image"),
        (b"\xff\xd8\xff\xe0" + bytes(100), "a JPEG image"),
        (b"PK\x03\x04" + bytes(100), "a ZIP archive (or an office document)"),
        (b"%PDF-1.7\n%\xe2\xe3", "a PDF document"),
        (b"RIFF\x10\x00\x00\x00WEBPVP8 ", "a WebP image"),
        (b"\x00\x00\x00\x1cftypavif" + bytes(20), "an AVIF image"),
        (b"MThd\x00\x00\x00\x06", "a MIDI file (notes without sound)"),
        (b"\x7fELF\x02\x01", "a program"),
        (b"#EXTM3U\nhttp://example.com/a.ts\n", "an M3U playlist"),
        (b"[playlist]\nFile1=a.mp3\n", "a PLS playlist"),
        (b"ffconcat version 1.0\nfile some/relative.wav", "a list of other files"),
        (b"\xef\xbb\xbfffconcat version 1.0\n", "a list of other files"),
        (b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\nm=audio 5004 RTP/AVP 0\r\n", "an SDP session description"),
        (b"\n\n<!DOCTYPE html><p>Not found", "an HTML page"),
        (b'{"error": "not found"}', "a JSON document"),
        ("Ein Text mit Umlauten: äöü".encode(), "a text file"),
        ("Text of Windows' Notepad".encode("utf-16"), "a text file"),
        (b"x", "a text file"),
    ],
)
def test_a_file_that_is_no_sound_is_refused_by_its_name(content: bytes, what: str) -> None:
    assert refusal(content) == f"The file is {what}, not sound."


def test_a_text_is_known_as_text_where_the_first_block_ends_inside_a_character() -> None:
    assert refusal(b"a" * 4095 + "ä".encode() * 10) == "The file is a text file, not sound."


def test_an_empty_file_is_called_empty() -> None:
    assert refusal(b"") == "The file is empty."


@pytest.mark.parametrize("content", [b"\x00", bytes(4096), b"\x01\x02\x03\xff\xfe", b"\xff" * 9])
def test_unknown_bytes_have_no_name(content: bytes) -> None:
    assert sniff(io.BytesIO(content)) is None


@pytest.mark.parametrize(
    ("content", "name"),
    [(b"fLaC\x00", "FLAC"), (b"OggS\x00", "Ogg"), (b"\x00\x00\x00\x20ftypM4A ", "MP4"), (b"\xff\xf1\x50", "AAC")],
)
def test_sound_is_known_by_its_first_bytes(content: bytes, name: str) -> None:
    assert sniff(io.BytesIO(content)) == name


def riff(kind: bytes, *chunks: tuple[bytes, int, bytes]) -> bytes:
    body = b"".join(name + struct.pack("<I", size) + content for name, size, content in chunks)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + kind + body


@pytest.mark.parametrize("kind", [b"WAVE", b"AVI "])
@pytest.mark.parametrize(
    "chunks",
    [
        [(b"LIST", 16, b"INFOISFT" + struct.pack("<I", 2 << 30) + b"lie!")],
        [(b"LIST", 2 << 30, b"INFO")],
        [(b"bext", 0xFFFFFFF0, bytes(700))],
        [(b"data", 4, bytes(4)), (b"LIST", 16, b"INFOICMT" + struct.pack("<I", 2 << 30) + b"lie!")],
        [(b"LIST", 24, b"hdrlLIST" + struct.pack("<I", 12) + b"strlstrd" + struct.pack("<I", 1 << 30))],
    ],
)
def test_a_riff_part_that_claims_gigabytes_is_refused(kind: bytes, chunks: list[tuple[bytes, int, bytes]]) -> None:
    assert "claims to be larger than the file" in refusal(riff(kind, *chunks))


@pytest.mark.parametrize("size", [0, 3, 5_000_000, 0x7FFFFFFF, 0xFFFFFFFF])
def test_the_data_of_a_wav_may_claim_any_size(size: int) -> None:
    assert sniff(io.BytesIO(riff(b"WAVE", (b"data", size, bytes(10))))) == "WAV"


def test_a_part_cut_off_by_the_end_of_the_file_is_no_lie() -> None:
    assert sniff(io.BytesIO(riff(b"WAVE", (b"data", 4, bytes(4)), (b"LIST", 400, b"INFO")))) == "WAV"


def test_garbage_behind_the_sound_is_no_part_that_lies() -> None:
    content = riff(b"WAVE", (b"data", 4, bytes(4))) + b"\x9c\x02\xf1\x7f\xff\xff\xff\x7f" + bytes(100)
    assert sniff(io.BytesIO(content)) == "WAV"


def test_a_million_empty_parts_are_not_counted_to_the_end() -> None:
    assert sniff(io.BytesIO(riff(b"WAVE", *[(b"junk", 0, b"")] * 100_000))) == "WAV"
