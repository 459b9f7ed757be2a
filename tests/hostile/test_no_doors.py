"""Files that name other files and addresses open none of them: a listening TCP socket, a UDP socket and a canary file
wait for whoever comes, and where strace is there, the kernel's own record is read.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from app.worker.messages import Decode, Decoded, DecodeMore, Failed, Limits, Ready
from tests.conftest import AUDIO
from tests.hostile import corpus
from tests.hostile.media import RATE, box, encode, speech

ROOT = Path(__file__).parent.parent.parent
#: Sound in short: enough for the decoder to be busy.
CLIP = AUDIO / "en000.flac"
#: A decoder that takes longer for such a file waits for somebody.
HANGS_S = 20


@dataclass
class Doors:
    """What the files below point at."""

    tcp: socket.socket
    udp: socket.socket
    canary: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.tcp.getsockname()[1]}"

    @property
    def knocked(self) -> bool:
        """Whether anybody has connected or sent a datagram."""
        return bool(select.select([self.tcp, self.udp], [], [], 0)[0])


@pytest.fixture
def doors(tmp_path: Path) -> Iterator[Doors]:
    with socket.socket() as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        tcp.bind(("127.0.0.1", 0))
        tcp.listen()
        udp.bind(("127.0.0.1", 0))
        folder = tmp_path / "canary"
        folder.mkdir()
        shutil.copy(CLIP, folder / "canary.flac")
        yield Doors(tcp, udp, folder / "canary.flac")


def lists(doors: Doors) -> dict[str, bytes]:
    """Everything that names the doors: each as text, and with a byte that is no text, which passes the first look."""
    media = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n"
    url, path, name = doors.url, str(doors.canary), doors.canary.name
    udp = doors.udp.getsockname()[1]
    mpd = (
        '<?xml version="1.0"?>'
        '<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT9S">'
        '<Period><AdaptationSet mimeType="audio/mp4"><Representation id="1" bandwidth="9"><BaseURL>{}</BaseURL>'
        "<SegmentBase/></Representation></AdaptationSet></Period></MPD>"
    )
    texts = {
        "ffconcat of a file": f"ffconcat version 1.0\nfile {name}\n",
        "ffconcat of a path": f"ffconcat version 1.0\nfile '{path}'\n",
        "ffconcat of an address": f"ffconcat version 1.0\nfile {url}/a.flac\n",
        "ffconcat with options": f"ffconcat version 1.0\nfile {name}\noption safe 0\n",
        "m3u8 of an address": f"{media}#EXTINF:9,\n{url}/a.ts\n#EXT-X-ENDLIST\n",
        "m3u8 with a key": f'{media}#EXT-X-KEY:METHOD=AES-128,URI="{url}/k"\n#EXTINF:9,\na.ts\n',
        "m3u8 with a map": f'{media}#EXT-X-MAP:URI="{url}/i"\n#EXTINF:9,\n{path}\n',
        "m3u8 of variants": f"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=9\n{url}/v.m3u8\n",
        "m3u8 of a file": f"{media}#EXTINF:9,\nfile://{path}\n#EXT-X-ENDLIST\n",
        "m3u of a path": f"#EXTM3U\n{path}\n",
        "pls": f"[playlist]\nFile1={url}/a.mp3\nNumberOfEntries=1\n",
        "xspf": f'<playlist xmlns="http://xspf.org/ns/0/"><trackList><track><location>{url}/a</location></track></trackList></playlist>',
        "asx": f'<asx version="3.0"><entry><ref href="{url}/a"/></entry></asx>',
        "smil": f'<smil><body><audio src="{url}/a"/></body></smil>',
        "dash of an address": mpd.format(f"{url}/a.mp4"),
        "dash of a path": mpd.format(path),
        "sdp": f"v=0\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio {udp + 2} RTP/AVP 0\r\n",
        "sdp of many": "v=0\r\ns=x\r\nc=IN IP4 239.0.0.1/9\r\nt=0 0\r\nm=audio 5004 RTP/AVP 0\r\n",
        "rtsp": f"RTSPtextRTSP://127.0.0.1:{doors.tcp.getsockname()[1]}/a",
        "concat protocol": f"concat:{path}|{path}",
        "subfile protocol": f"subfile,,start,0,end,9999,,:{path}",
        "an address": f"{url}/a.mp3",
        "a path": path,
        "imf": f'<?xml version="1.0"?><AssetMap xmlns="http://www.smpte-ra.org/schemas/429-9/2007/AM"><Path>{url}</Path></AssetMap>',
    }
    found = {name: text.encode() for name, text in texts.items()}
    found |= {f"{name}, with a bad byte": text + b"\n# \xff is no text\n" for name, text in found.items()}
    return found | {"mov with a data reference": referring(path), "mov with an alias": referring(name)}


def referring(path: str) -> bytes:
    """A QuickTime film whose sound lies in another file, as its data reference says."""
    mov = encode(speech()[:RATE], "mov", "pcm_s16be")
    url = box(b"url ", b"\0\0\0\0", f"file://{path}\0".encode())
    inside = box(b"dref", b"\0\0\0\0\0\0\0\1", url)
    old = mov.index(b"dinf") - 4
    size = int.from_bytes(mov[old : old + 4], "big")
    new = box(b"dinf", inside)
    out = bytearray(mov[:old] + new + mov[old + size :])
    for name in (b"moov", b"trak", b"mdia", b"minf"):
        at = out.index(name) - 4
        out[at : at + 4] = (int.from_bytes(out[at : at + 4], "big") + len(new) - size).to_bytes(4, "big")
    return bytes(out)


class Child:
    """A decoder as the server starts it, in ``cwd``, perhaps under strace."""

    def __init__(self, cwd: Path, before: tuple[str, ...] = ()) -> None:
        self._connection, theirs = Pipe()
        command = [*before, sys.executable, "-m", "app.worker.decoder", str(theirs.fileno())]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], cwd=cwd, env=environment)
        theirs.close()
        assert isinstance(self._receive(self._connection), Ready)

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        try:
            self._process.wait(30)
        finally:
            self._process.kill()

    def decode(self, source: Path, pcm: Path) -> Decoded | Failed:
        """The last reply for ``source``."""
        self._connection.send(Decode(str(source), str(pcm), Limits(audio_s=600, wall_s=20)))
        while isinstance(reply := self._receive(self._connection), Decoded) and not reply.done:
            self._connection.send(DecodeMore())
        return reply

    @staticmethod
    def _receive(connection: Connection) -> Decoded | Failed | Ready:
        assert connection.poll(HANGS_S), "the decoder hangs"
        return connection.recv()  # type: ignore[no-any-return]


@pytest.fixture(params=["the canary's folder", "/"])
def cwd(request: pytest.FixtureRequest, doors: Doors) -> Path:
    return doors.canary.parent if request.param != "/" else Path("/")


def test_no_list_opens_a_door(doors: Doors, cwd: Path, tmp_path: Path) -> None:
    with Child(cwd) as child:
        for name, content in lists(doors).items():
            source = tmp_path / "list.m3u8"
            source.write_bytes(content)
            reply = child.decode(source, tmp_path / "pcm")
            if isinstance(reply, Decoded):
                # A film's own second of sound may be heard, the canary's four not.
                assert "mov" in name, name
                assert reply.samples <= RATE, name
            else:
                assert reply.code in {"unsupported_audio", "undecodable_audio"}, (name, reply)
            assert not doors.knocked, name
        assert isinstance(child.decode(doors.canary, tmp_path / "pcm"), Decoded), "the canary itself is sound"


def test_the_doors_notice_who_comes(doors: Doors) -> None:
    assert not doors.knocked
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", doors.udp.getsockname())
        assert doors.knocked
    doors.udp.recv(9)
    with socket.create_connection(doors.tcp.getsockname()):
        assert doors.knocked


# --- under strace ---

#: What a decoder may open besides its upload and its PCM: the interpreter, libraries, what the system says of itself.
PLACES = (
    str(ROOT),
    sys.prefix,
    sys.base_prefix,
    *sysconfig.get_paths().values(),
    "/usr/",
    "/lib",
    "/etc/ld.so",
    "/etc/localtime",
    "/proc/",
    "/sys/",
    "/dev/null",
    "/dev/urandom",
)
OPEN = re.compile(r'open(?:at)?\((?:AT_FDCWD|\d+)?(?:<[^>]*>)?,? ?"((?:[^"\\]|\\.)*)"')


def may_trace() -> bool:
    if shutil.which("strace") is None:
        return False
    return subprocess.run(["strace", "-f", "true"], capture_output=True, check=False).returncode == 0


def test_the_kernel_saw_no_socket_and_no_other_file(doors: Doors, tmp_path: Path) -> None:
    if not may_trace():
        pytest.skip("strace is not here, or may not trace")
    uploads = tmp_path / "uploads"
    uploads.mkdir()
    record, marker = tmp_path / "strace", uploads / "first"
    files = lists(doors)
    files |= {name: make() for name, make, _, _ in corpus.rows() if "claims nothing" not in name}
    calls = "trace=open,openat,openat2,connect,bind,socket,sendto,sendmsg,execve,fork,vfork,unlink,rename,symlink,link"
    with Child(doors.canary.parent, ("strace", "-f", "-qq", "-e", calls, "-o", str(record))) as child:
        shutil.copy(CLIP, marker)
        assert isinstance(child.decode(marker, uploads / "pcm"), Decoded)
        for content in files.values():
            (uploads / "upload").write_bytes(content)
            child.decode(uploads / "upload", uploads / "pcm")
    lines = record.read_text(errors="replace").splitlines()
    begin = next(number for number, line in enumerate(lines) if f'"{marker}"' in line)
    decoding = lines[begin:]
    assert sum(f'"{uploads}/upload"' in line for line in decoding) >= len(files)
    wrong = [line for line in decoding if not _is_harmless(line, uploads)]
    assert not wrong, "\n".join(wrong[:20])


def _is_harmless(line: str, uploads: Path) -> bool:
    if "+++ exited" in line or "--- SIG" in line or "resumed" in line:
        return True
    found = OPEN.search(line)
    return found is not None and found[1].startswith((str(uploads) + "/", *PLACES))


def test_the_reader_of_the_record_knows_a_harmful_line(tmp_path: Path) -> None:
    uploads = tmp_path
    assert _is_harmless(f'1 openat(AT_FDCWD, "{uploads}/upload", O_RDONLY) = 5', uploads)
    for line in (
        '1 openat(AT_FDCWD, "canary.flac", O_RDONLY) = 5',
        '1 openat(AT_FDCWD, "/etc/passwd", O_RDONLY) = 5',
        "1 connect(5, {sa_family=AF_INET, sin_port=htons(9)}, 16) = 0",
        "1 bind(5, {sa_family=AF_INET, sin_port=htons(5004)}, 16) = 0",
        "1 socket(AF_INET, SOCK_STREAM, IPPROTO_TCP) = 5",
        '1 execve("/bin/sh", ["sh"], 0x7ffe) = 0',
    ):
        assert not _is_harmless(line, uploads), line
