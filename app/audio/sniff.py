"""What a file says it is, before any decoder sees it: magic bytes, and the chunk sizes of RIFF files.

Standard library only. Two reasons to look first: a person who sends a PNG or a playlist should read that, not "invalid
data"; and libav believes some sizes in headers and takes gigabytes of memory for a file of a few bytes.
"""

from __future__ import annotations

import os
import string
import struct
from collections.abc import Iterator
from typing import BinaryIO

from app.errors import UndecodableAudio, UnsupportedAudio

#: Enough for every magic number below and for telling text from sound.
HEAD_BYTES = 4096
#: A header may lie by this much: truncated files are common and small lies cost no memory.
LIE_BYTES = 1 << 20
#: A RIFF file has a dozen chunks; a file made of millions of empty ones shall not keep us counting.
MAX_CHUNKS = 4096
#: LIST inside LIST inside RIFF is as deep as AVI and WAV go.
MAX_DEPTH = 4

#: (offset, bytes, name): sound, or a container that can hold some. The name completes "The … file is broken".
SOUND: tuple[tuple[int, bytes, str], ...] = (
    (8, b"WAVE", "WAV"),
    (8, b"AVI ", "AVI"),
    (0, b"riff\x2e\x91\xcf\x11", "Wave64"),
    (0, b"fLaC", "FLAC"),
    (0, b"OggS", "Ogg"),
    (0, b"ID3", "MP3"),
    (4, b"ftyp", "MP4"),
    (4, b"moov", "QuickTime"),
    (4, b"mdat", "QuickTime"),
    (4, b"wide", "QuickTime"),
    (0, b"\x1a\x45\xdf\xa3", "Matroska"),
    (8, b"AIFF", "AIFF"),
    (8, b"AIFC", "AIFF"),
    (0, b"caff", "CAF"),
    (0, b"#!AMR", "AMR"),
    (0, b".snd", "AU"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "ASF"),
    (0, b"\x00\x00\x01\xba", "MPEG"),
    (0, b"FLV\x01", "FLV"),
    (0, b"wvpk", "WavPack"),
    (0, b"MAC ", "Monkey's Audio"),
    (0, b"TTA1", "TTA"),
    (0, b"Creative Voice File", "VOC"),
    (0, b"\xff\xf1", "AAC"),
    (0, b"\xff\xf9", "AAC"),
    (0, b"\xff\xfb", "MP3"),
    (0, b"\xff\xf3", "MP3"),
    (0, b"\xff\xfa", "MP3"),
    (0, b"\xff\xf2", "MP3"),
    (0, b"\xff\xe3", "MP3"),
    (0, b"\xff\xe2", "MP3"),
    (0, b"\xff\xfd", "MP2"),
    (0, b"\xff\xfc", "MP2"),
)

#: (offset, bytes, what it is): files that people send by mistake. Looked through before ``SOUND``.
STRANGERS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"GIF8", "a GIF image"),
    (0, b"II*\x00", "a TIFF image"),
    (0, b"MM\x00*", "a TIFF image"),
    (0, b"8BPS", "a Photoshop image"),
    (8, b"WEBP", "a WebP image"),
    (4, b"ftypavif", "an AVIF image"),
    (4, b"ftyphei", "a HEIC image"),
    (4, b"ftypmif1", "a HEIF image"),
    (0, b"PK\x03\x04", "a ZIP archive (or an office document)"),
    (0, b"PK\x05\x06", "an empty ZIP archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"BZh", "a bzip2 archive"),
    (0, b"\xfd7zXZ", "an xz archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (0, b"Rar!", "a RAR archive"),
    (257, b"ustar", "a tar archive"),
    (0, b"%PDF", "a PDF document"),
    (0, b"\xd0\xcf\x11\xe0", "an old office document"),
    (0, b"SQLite format 3", "an SQLite database"),
    (0, b"\x7fELF", "a program"),
    (0, b"MZ", "a Windows program"),
    (0, b"\xcf\xfa\xed\xfe", "a program"),
    (0, b"\xca\xfe\xba\xbe", "a program"),
    (0, b"MThd", "a MIDI file (notes without sound)"),
    (8, b"RMID", "a MIDI file (notes without sound)"),
)

#: (start of the text in lower case, what it is). Playlists and scripts make libav open other files and sockets.
TEXTS: tuple[tuple[str, str], ...] = (
    ("#extm3u", "an M3U playlist"),
    ("[playlist]", "a PLS playlist"),
    ("ffconcat", "a list of other files"),
    ("v=0", "an SDP session description"),
    (";ffmetadata", "a metadata file"),
    ("webvtt", "a subtitle file"),
    ("1\n00:", "a subtitle file"),
    ("1\r\n00:", "a subtitle file"),
    ("<!doctype html", "an HTML page"),
    ("<html", "an HTML page"),
    ("<?xml", "an XML document"),
    ("<svg", "an SVG image"),
    ("<", "an XML document"),
    ("{", "a JSON document"),
    ("http://", "a link"),
    ("https://", "a link"),
    ("data:audio", "a data URL (its base64 must be decoded first)"),
)

_TEXT_CHARACTERS = frozenset(string.printable)
_RIFF_BYTE_ORDER = {b"RIFF": "<I", b"RIFX": ">I", b"RF64": "<I", b"BW64": "<I"}


def sniff(file: BinaryIO) -> str | None:
    """The name of the container by its first bytes ("WAV", "MP3", …), or None where they are unknown.

    ``file`` is seekable; its position is moved. Raises ``UndecodableAudio`` where the file is empty or its RIFF sizes
    are lies, ``UnsupportedAudio`` where it is something else than sound, which its sentence names.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(HEAD_BYTES)
    if not head:
        raise UndecodableAudio("The file is empty.")
    if _RIFF_BYTE_ORDER.get(head[:4]) and head[8:12] in (b"WAVE", b"AVI "):
        _check_riff(file, size, _RIFF_BYTE_ORDER[head[:4]])
    for offset, magic, what in STRANGERS:
        if head.startswith(magic, offset):
            raise UnsupportedAudio(f"The file is {what}, not sound.")
    for offset, magic, name in SOUND:
        if head.startswith(magic, offset):
            return name
    if (text := _as_text(head)) is not None:
        raise UnsupportedAudio(f"The file is {_kind_of_text(text)}, not sound.")
    return None


def _as_text(head: bytes) -> str | None:
    """``head`` as text, or None where it is not all text. Compressed sound is never valid UTF-8 for long."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
        head = head[: len(head) // 2 * 2]
    else:
        encoding = "utf-8-sig"
    for cut in range(4):  # the last character may be cut in two
        try:
            text = head[: len(head) - cut].decode(encoding)
        except UnicodeDecodeError:
            continue
        readable = sum(c in _TEXT_CHARACTERS or (ord(c) >= 0xA0 and c.isprintable()) for c in text)
        return text if text and readable == len(text) else None
    return None


def _kind_of_text(text: str) -> str:
    start = text.lstrip()[:100].lower()
    return next((what for prefix, what in TEXTS if start.startswith(prefix)), "a text file")


def _check_riff(file: BinaryIO, size: int, number: str) -> None:
    """Refuse a RIFF file one of whose chunks, other than the sound itself, claims far more than the file holds.

    ``data`` may claim anything: who writes a WAV to a pipe cannot know its size, and puts 0 or 0xFFFFFFFF.
    """
    for claimed_end in _claims(file, 12, size, number, 0):
        if claimed_end > size + LIE_BYTES:
            raise UndecodableAudio("The file's header is broken: one of its parts claims to be larger than the file.")


def _claims(file: BinaryIO, position: int, end: int, number: str, depth: int) -> Iterator[int]:
    """Where each chunk of ``[position, end)`` says that it ends, lists walked into."""
    for _ in range(MAX_CHUNKS):
        file.seek(position)
        header = file.read(8)
        if position + 8 > end or len(header) < 8:
            return
        name, length = header[:4], struct.unpack(number, header[4:])[0]
        # The sound, an AVI's sound and pictures, an AVI's next gigabyte: a truncated file is short of these.
        if name in (b"data", b"movi", b"RIFF") or (name == b"LIST" and file.read(4) == b"movi"):
            if not 0 < length < end - position - 8:
                return
        elif name == b"LIST" and depth < MAX_DEPTH:
            yield position + 8 + length
            yield from _claims(file, position + 12, min(end, position + 8 + length), number, depth + 1)
        elif name.isascii() and name.decode().isprintable():  # no demuxer knows others: garbage, which is passed over
            yield position + 8 + length
        position += 8 + length + length % 2
