"""Any audio or video file to 16 kHz mono s16, a block at a time, by libav (PyAV) and its rules of caution.

The file is a stranger's. What is done against it, and why, stands at each setting; what cannot be stopped from inside
(a native crash, an index that takes gigabytes) is why this module runs in a child process that may be killed. libav
never learns the file's name, opens nothing but the bytes it is handed, and no error of its own leaves this module.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet

from app.audio.mix import Mixer, Pcm
from app.audio.sniff import sniff
from app.errors import AudioTooLong, UndecodableAudio, UnsupportedAudio
from app.transcript import SAMPLE_RATE

#: libav's names of the containers that may be opened: each of the demuxers' comma-separated names is looked up here.
#: Not in it: anything that names other files or addresses (concat, hls, sdp, dash), images, raw PCM, and the rest.
FORMATS = (
    "wav,w64,mp3,flac,ogg,mov,matroska,aac,loas,aiff,caf,amr,amrnb,amrwb,au,asf,avi,flv,mpegts,mpeg,"
    "ac3,eac3,dts,wv,ape,tta,tak,mpc,mpc8,dsf,voc,nistsphere,sox"
)
#: libav's names of the decoders that may run: sound only, so that cover art (37 kB can take 2 GB) and video are never
#: decoded, and no games' formats of the nineties.
CODECS = (
    "aac,aac_fixed,aac_latm,ac3,eac3,alac,als,amrnb,amrwb,libopencore_amrnb,libopencore_amrwb,ape,dca,dsd_lsbf,"
    "dsd_lsbf_planar,dsd_msbf,dsd_msbf_planar,flac,g722,g723_1,g726,g726le,g729,gsm,gsm_ms,ilbc,mlp,truehd,mp1,"
    "mp1float,mp2,mp2float,mp3,mp3float,mp3adu,mp3adufloat,mp3on4,mp3on4float,mpc7,mpc8,nellymoser,opus,libopus,"
    "qcelp,evrc,qdm2,qdmc,shorten,speex,libspeex,tak,tta,vorbis,wavpack,wmalossless,wmapro,wmav1,wmav2,wmavoice,"
    "adpcm_ima_qt,adpcm_ima_wav,adpcm_ms,adpcm_swf,adpcm_yamaha,adpcm_g722,adpcm_g726,mace3,mace6,"
    "pcm_alaw,pcm_mulaw,pcm_bluray,pcm_dvd,pcm_lxf,pcm_f16le,pcm_f24le,pcm_f32be,pcm_f32le,pcm_f64be,pcm_f64le,"
    "pcm_s8,pcm_s8_planar,pcm_s16be,pcm_s16be_planar,pcm_s16le,pcm_s16le_planar,pcm_s24be,pcm_s24le,"
    "pcm_s24le_planar,pcm_s32be,pcm_s32le,pcm_s32le_planar,pcm_s64be,pcm_s64le,pcm_u8,pcm_u16be,pcm_u16le,"
    "pcm_u24be,pcm_u24le,pcm_u32be,pcm_u32le"
)
OPTIONS = {
    "format_whitelist": FORMATS,
    "codec_whitelist": CODECS,
    "protocol_whitelist": "none",  # with the formats' list: no other file, no network
    "advanced_editlist": "0",  # 2,000 edits in 69 kB of M4A take 2 GB; the simple list still trims the priming
    "max_streams": "32",  # a film has a dozen; each stream costs memory
}
#: Tags that are no UTF-8 must not fail the file. From PyAV 19 on they never do.
_METADATA: dict[str, Any] = {"metadata_errors": "ignore"} if int(av.__version__.partition(".")[0]) < 19 else {}
#: Containers whose declared duration is a guess from the first frames' bit rate.
GUESSING = frozenset({"mp3", "aac", "loas", "mpegts", "mpeg", "ac3", "eac3", "dts", "amr", "amrnb", "amrwb"})
#: A guess may be this many times too long before the file is refused by it.
GUESS_FACTOR = 2.0
#: A declared duration may be this much over the limit: containers round, and count what is trimmed.
DECLARED_SLACK_S = 1.0
#: Sampling rates (Hz) between an old telephone's and twice a studio's. At 10 Hz, 55 bytes become 4 h.
MIN_RATE, MAX_RATE = 4_000, 384_000
#: Ambisonics of the 7th order have 64.
MAX_CHANNELS = 64
#: The longest frame: no codec makes frames over 30 s, and each is decoded whole.
MAX_FRAME_S = 120
#: Errors of the container itself after which reading goes on behind the bad place.
MAX_DEMUX_ERRORS = 64
#: Shorter holes between frames are roundings.
MIN_HOLE_S = 0.2
#: Bytes libav asks for at once; its default of 32 kB makes eight times the calls into Python.
READ_BYTES = 256 * 1024


class Sound:
    """A file being decoded: iterate over ``blocks`` once, then ``close`` (or use it as a context manager).

    ``declared_s`` is the container's word for its duration, or None; ``bad_packets`` and ``samples`` (at 16 kHz) count
    what was met so far. Holds a few hundred kilobytes, whatever the length.
    """

    def __init__(self, path: str, audio_s: float, wall_s: float) -> None:
        """Open ``path``, of at most ``audio_s`` seconds of sound, to be decoded in ``wall_s`` seconds of work from now.

        Work is this process's processor time: waiting for the next request, or a sleeping machine, costs nothing. (A
        file that makes libav wait instead is ended by whoever watches this process.)
        Raises ``UnsupportedAudio``, ``UndecodableAudio`` or ``AudioTooLong``.
        """
        self.bad_packets = 0
        self.samples = 0
        self._holes_s = 0.0
        self._next_s: float | None = None
        self._max_samples = round(audio_s * SAMPLE_RATE)
        self._deadline = time.process_time() + wall_s
        self._file = _open_regular(path)
        self._container: InputContainer | None = None
        try:
            self._name = sniff(self._file)
            with self._libav_errors():
                self._container = _open_container(_Nameless(self._file, self._deadline))
                self._stream = self._pick_stream(self._container)
                self.declared_s = _declared(self._container, self._stream, os.fstat(self._file.fileno()).st_size)
                self._guessed = bool(GUESSING & set(self._container.format.name.split(",")))
                self._check_declared(audio_s)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Sound:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._container is not None:
            self._container.close()
            self._container = None
        self._file.close()

    @property
    def missing_s(self) -> float:
        """Seconds that the container promised, by the track's duration or by its times on both sides of a hole, and
        that did not come, once all blocks did; 0 where it only guessed.
        """
        if self._guessed:
            return 0.0
        promised = self.declared_s if self._stream.duration else None
        return max(self._holes_s, (promised or 0.0) - self.samples / SAMPLE_RATE)

    def blocks(self) -> Iterator[Pcm]:
        """The sound in order, as (n,) arrays of at most half a second or one frame each.

        A packet that cannot be decoded is counted and left out. Raises ``AudioTooLong`` where more sound comes than
        allowed, ``UndecodableAudio`` where there is none at all, the time is over, or a frame is out of all bounds.
        """
        mixer: Mixer | None = None
        with self._libav_errors():
            for frame in self._frames():
                _check_frame(frame)
                self._look_for_hole(frame)
                if mixer is None or not mixer.fits(frame):
                    if mixer is not None:
                        yield from self._count(mixer.flush())
                    mixer = Mixer(frame)
                yield from self._count(mixer.feed(frame))
            if mixer is not None:
                yield from self._count(mixer.flush())
        if not self.samples:
            raise UndecodableAudio(f"The {self._name or 'audio'} file holds no sound that can be decoded.")

    def _count(self, arrays: Iterator[Pcm]) -> Iterator[Pcm]:
        for array in arrays:
            self.samples += len(array)
            if self.samples > self._max_samples:
                raise AudioTooLong(f"The recording is longer than {_hours(self._max_samples / SAMPLE_RATE)}.")
            yield array

    def _look_for_hole(self, frame: AudioFrame) -> None:
        """Count the time between the end of the frame before and the beginning of this one, where it is a good part of
        a second: containers round.
        """
        if frame.time is None:
            return
        if self._next_s is not None and frame.time - self._next_s >= MIN_HOLE_S:
            self._holes_s += frame.time - self._next_s
        self._next_s = frame.time + frame.samples / frame.sample_rate

    def _frames(self) -> Iterator[AudioFrame]:
        for packet in self._packets():
            _check_clock(self._deadline)
            try:
                frames = packet.decode() if packet is not None else self._stream.codec_context.decode(None)
            except EOFError:
                continue
            except (av.error.FFmpegError, ValueError):
                self.bad_packets += 1
                continue
            yield from (frame for frame in frames if isinstance(frame, AudioFrame) and frame.samples)

    def _packets(self) -> Iterator[Packet[AudioStream] | None]:
        """The stream's packets; the last one, or None, asks the decoder for what it holds back.

        An error of the container ends PyAV's generator but not the file: a new one goes on behind the bad place.
        """
        container = self._container
        for _ in range(MAX_DEMUX_ERRORS):
            if container is None:
                return
            try:
                yield from container.demux(self._stream)
            except (av.error.FFmpegError, ValueError):
                self.bad_packets += 1
            except IndexError:
                return  # PyAV 18.1, at the end, over a track that appeared only while it read; ours was asked before
            else:
                return
        yield None

    def _pick_stream(self, container: InputContainer) -> AudioStream:
        """The first sound track whose codec is known and allowed."""
        tracks = [stream for stream in container.streams if isinstance(stream, AudioStream)]
        if not tracks:
            raise UnsupportedAudio("The container holds no sound track.")
        allowed = frozenset(CODECS.split(","))
        for stream in tracks:
            # PyAV has no codec context for a codec that this libav does not know.
            if stream.codec_context is not None and stream.codec_context.name in allowed:
                stream.codec_context.thread_count = 1  # one core is the decoder's share; threads only add copies
                for other in container.streams:
                    other.discard = av.stream.Discard.default if other is stream else av.stream.Discard.all
                return stream
        raise UnsupportedAudio("The sound track is coded in a way that whisperd cannot decode.")

    def _check_declared(self, audio_s: float) -> None:
        if self.declared_s is None:
            return
        factor = GUESS_FACTOR if self._guessed else 1.0
        if self.declared_s > audio_s * factor + DECLARED_SLACK_S:
            raise AudioTooLong(f"The recording lasts {_hours(self.declared_s)}; the limit is {_hours(audio_s)}.")

    @contextmanager
    def _libav_errors(self) -> Iterator[None]:
        """Turn what libav raises into our words: unknown first bytes are unsupported, known ones are broken."""
        try:
            yield
        except MemoryError:
            raise UndecodableAudio("The file asks for more memory than any sound needs.") from None
        except av.error.DecoderNotFoundError:
            raise UnsupportedAudio("The sound track is coded in a way that whisperd cannot decode.") from None
        except (av.error.FFmpegError, OSError, ValueError, OverflowError):
            # The white lists' refusal is EINVAL: av.error.ArgumentError, a ValueError.
            if self._name is None:
                raise UnsupportedAudio("The file is no audio or video format that whisperd knows.") from None
            raise UndecodableAudio(f"The {self._name} file is broken and cannot be decoded.") from None


class _Nameless:
    """What libav reads through: an open file without the ``name`` that PyAV would show to libav's demuxers.

    Reading stops with ``UndecodableAudio`` at the deadline, so that opening a file ends in time as well.
    """

    def __init__(self, file: BinaryIO, deadline: float) -> None:
        file.seek(0)
        self._deadline = deadline
        self._read = file.read
        self._seek = file.seek
        self.tell = file.tell

    def read(self, size: int) -> bytes:
        _check_clock(self._deadline)
        return self._read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """The new position; libav's negative error where a broken file points before its own start."""
        try:
            return self._seek(offset, whence)
        except (OSError, OverflowError):
            return -errno.EINVAL


def _open_regular(path: str) -> BinaryIO:
    """Open a regular file, never a pipe or device; the caller's own spool, so a failure is no fault of the sender."""
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering=0)
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise UndecodableAudio("The source is no regular file.")
    return file


def _open_container(file: _Nameless) -> InputContainer:
    container: InputContainer = av.open(
        file, mode="r", container_options=dict(OPTIONS), buffer_size=READ_BYTES, **_METADATA
    )
    return container


def _declared(container: InputContainer, stream: AudioStream, size: int) -> float | None:
    """The duration in seconds that the container claims, None where it claims none.

    Plain PCM cannot last longer than its bytes: WAVs written to a pipe claim hours.
    """
    claims: list[float] = []
    if stream.duration and stream.time_base:
        claims.append(float(stream.duration * stream.time_base))
    elif container.duration:
        claims.append(container.duration / av.time_base)
    context = stream.codec_context
    if claims and context.name.startswith("pcm_") and context.bit_rate:
        claims.append(size * 8 / context.bit_rate)
    return min((claim for claim in claims if claim >= 0), default=None)


def _check_clock(deadline: float) -> None:
    if time.process_time() >= deadline:
        raise UndecodableAudio("Decoding the file takes too long.")


def _check_frame(frame: AudioFrame) -> None:
    rate, channels = frame.sample_rate, frame.layout.nb_channels
    if not MIN_RATE <= rate <= MAX_RATE:
        raise UndecodableAudio(f"The sound's sampling rate of {rate} Hz is out of bounds.")
    if not 0 < channels <= MAX_CHANNELS:
        raise UndecodableAudio(f"The sound has {channels} channels; at most {MAX_CHANNELS} can be decoded.")
    if frame.samples > MAX_FRAME_S * rate:
        raise UndecodableAudio("The file is broken: one of its frames claims to last for minutes.")


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{seconds:.0f} seconds"
