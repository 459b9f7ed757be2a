from __future__ import annotations

import itertools
import math
import struct
import subprocess
import sys
import zlib

import av
import numpy as np
import pytest

from app.audio.decode import Sound, _Nameless
from app.errors import AudioTooLong, UndecodableAudio, UnsupportedAudio


def decode(path, audio_s=3600.0, wall_s=60.0):
    """(samples, the closed Sound)."""
    with Sound(str(path), audio_s, wall_s) as sound:
        return np.concatenate(list(sound.blocks())), sound


def refusal(path, error, **limits):
    with pytest.raises(error) as caught:
        decode(path, **limits)
    assert type(caught.value) is error
    return caught.value.message


def likeness(heard, original):
    """The best correlation of the two within 0.1 s of shift (codecs delay)."""
    size = 1 << 17
    spectra = np.fft.rfft(heard.astype(float), size) * np.fft.rfft(original.astype(float), size).conj()
    products = np.fft.irfft(spectra)
    best = max(products[:1600].max(), products[-1600:].max())
    return best / (np.linalg.norm(heard.astype(float)) * np.linalg.norm(original.astype(float)))


KINDS = {
    "wav": ("a.wav", "pcm_s16le", {}),
    "wav at 8 kHz": ("a.wav", "pcm_s16le", {"rate": 8_000}),
    "wav at 48 kHz in stereo": ("a.wav", "pcm_s16le", {"rate": 48_000, "layout": "stereo"}),
    "wav of 64 bit floats": ("a.wav", "pcm_f64le", {"rate": 44_100}),
    "wav of A-law": ("a.wav", "pcm_alaw", {"rate": 8_000}),
    "wav with 7.1": ("a.wav", "pcm_s24le", {"rate": 48_000, "layout": "7.1"}),
    "w64": ("a.w64", "pcm_s16le", {}),
    "flac": ("a.flac", "flac", {}),
    "aiff": ("a.aiff", "pcm_s16be", {"rate": 44_100}),
    "caf": ("a.caf", "pcm_s16be", {"rate": 44_100}),
    "au": ("a.au", "pcm_s16be", {"rate": 8_000}),
    "mp3": ("a.mp3", "libmp3lame", {"rate": 44_100, "layout": "stereo"}),
    "ogg with opus": ("a.ogg", "libopus", {"rate": 48_000}),
    "ogg with opus in 7.1": ("a.ogg", "libopus", {"rate": 48_000, "layout": "7.1"}),
    "m4a": ("a.m4a", "aac", {"rate": 44_100, "container": "ipod"}),
    "m4a in 7.1": ("a.m4a", "aac", {"rate": 48_000, "layout": "7.1", "container": "ipod"}),
    "m4a with alac": ("a.m4a", "alac", {"rate": 44_100, "container": "ipod"}),
    "webm": ("a.webm", "libopus", {"rate": 48_000}),
    "raw aac": ("a.aac", "aac", {"rate": 44_100, "container": "adts"}),
    "film in mp4": ("a.mp4", "aac", {"rate": 48_000, "picture": True}),
    "film in matroska": ("a.mkv", "libopus", {"rate": 48_000, "picture": True}),
    "film in avi": ("a.avi", "libmp3lame", {"rate": 44_100, "picture": True}),
    "film in mpegts": ("a.ts", "aac", {"rate": 48_000, "picture": True}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_common_kind_of_file_becomes_the_sound_that_went_in(kind, tmp_path, clip, encode) -> None:
    name, codec, options = KINDS[kind]
    original = clip("en001.flac")
    heard, sound = decode(encode(tmp_path / name, original, codec, **options))
    assert sound.bad_packets == 0
    assert sound.samples == len(heard)
    assert len(heard) / 16_000 == pytest.approx(len(original) / 16_000, abs=0.15)
    assert likeness(heard, original) > 0.9


def test_a_file_needs_no_suffix_and_a_wrong_one_is_ignored(tmp_path, clip, encode) -> None:
    encode(tmp_path / "a.mp3", clip("en001.flac"), "libmp3lame").rename(tmp_path / "a.m3u8")
    assert decode(tmp_path / "a.m3u8")[1].samples > 50_000


@pytest.mark.parametrize("channels", [9, 16, 32, 64])
def test_many_channels_are_averaged(channels, tmp_path, clip, wav) -> None:
    original = clip("en001.flac")
    (tmp_path / "a").write_bytes(wav(original, channels=channels))
    heard, _ = decode(tmp_path / "a")
    assert len(heard) == len(original)
    assert np.abs(heard.astype(int) - original).max() <= 2


def test_more_channels_than_any_microphone_has_are_refused(tmp_path, clip, wav) -> None:
    (tmp_path / "a").write_bytes(wav(clip("en001.flac")[:1600], channels=65))
    assert "65 channels" in refusal(tmp_path / "a", UndecodableAudio)


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFF000, 3_000_000])
def test_a_wav_written_to_a_pipe_is_decoded_whatever_size_it_claims(size, tmp_path, clip, wav) -> None:
    original = clip("en001.flac")
    (tmp_path / "a").write_bytes(wav(original, data_size=size))
    heard, sound = decode(tmp_path / "a", audio_s=10)
    assert np.array_equal(heard, original)
    assert sound.declared_s is None or sound.declared_s < 4


@pytest.mark.parametrize("rate", [10, 3_999, 655_350])
def test_a_sampling_rate_that_no_device_has_is_refused(rate, tmp_path, wav) -> None:
    (tmp_path / "a").write_bytes(wav(np.zeros(rate // 100 + 5, np.int16), rate=rate))
    assert str(rate) in refusal(tmp_path / "a", UndecodableAudio)


def test_a_flac_of_10_hz_is_refused_before_it_becomes_hours(tmp_path, encode) -> None:
    with av.open(str(tmp_path / "a.flac"), "w") as output:
        stream = output.add_stream("flac", rate=10, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4_608), np.int16), format="s16", layout="mono")
        frame.sample_rate = 10
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    assert "10 Hz" in refusal(tmp_path / "a.flac", UndecodableAudio)


# --- broken files ---


@pytest.mark.parametrize(("name", "codec"), [("a.mp3", "libmp3lame"), ("a.aac", "aac"), ("a.ogg", "libopus")])
def test_bad_bytes_in_the_middle_cost_only_their_own_place(name, codec, tmp_path, minute, encode) -> None:
    options = {"container": "adts"} if codec == "aac" else {}
    path = encode(tmp_path / name, minute, codec, rate=48_000, **options)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 400] = np.random.default_rng(5).bytes(400)
    path.write_bytes(content)
    heard, _ = decode(path)
    assert len(heard) >= 0.95 * len(minute)


def test_bad_bytes_in_the_middle_of_an_m4a_are_counted(tmp_path, minute, encode) -> None:
    path = encode(tmp_path / "a.m4a", minute, "aac", rate=48_000, container="ipod")
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 400] = b"\xff" * 400
    path.write_bytes(content)
    heard, sound = decode(path)
    assert len(heard) >= 0.95 * len(minute)
    assert sound.bad_packets > 0


@pytest.mark.parametrize(("name", "codec"), [("a.mp3", "libmp3lame"), ("a.flac", "flac"), ("a.wav", "pcm_s16le")])
def test_of_a_truncated_file_the_rest_is_heard(name, codec, tmp_path, clip, encode) -> None:
    original = clip("en001.flac")
    path = encode(tmp_path / name, original, codec)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    heard, _ = decode(path)
    assert len(original) * 0.4 < len(heard) < len(original) * 0.8


def test_an_m4a_without_its_index_is_called_broken(tmp_path, clip, encode) -> None:
    path = encode(tmp_path / "a.m4a", clip("en001.flac"), "aac", container="ipod")
    path.write_bytes(path.read_bytes()[:8_000])
    assert refusal(path, UndecodableAudio) == "The MP4 file is broken and cannot be decoded."


def test_where_the_rate_changes_in_the_middle_both_parts_are_heard(tmp_path, clip, encode) -> None:
    original = clip("en001.flac")
    low = encode(tmp_path / "low.mp3", original, "libmp3lame", rate=16_000).read_bytes()
    high = encode(tmp_path / "high.mp3", original, "libmp3lame", rate=48_000, layout="stereo").read_bytes()
    (tmp_path / "both").write_bytes(low + high)
    heard, _ = decode(tmp_path / "both")
    assert len(heard) == pytest.approx(2 * len(original), rel=0.06)


def test_chained_ogg_files_are_heard_to_the_end(tmp_path, clip, encode) -> None:
    original = clip("en001.flac")
    one = encode(tmp_path / "a.ogg", original, "libopus", rate=48_000).read_bytes()
    (tmp_path / "both").write_bytes(one + one)
    heard, _ = decode(tmp_path / "both")
    assert len(heard) == pytest.approx(2 * len(original), rel=0.05)


def test_a_wav_without_samples_holds_no_sound(tmp_path, wav) -> None:
    (tmp_path / "a").write_bytes(wav(np.zeros(0, np.int16)))
    assert refusal(tmp_path / "a", UndecodableAudio).startswith("The WAV file")


def test_an_empty_file_is_called_empty(tmp_path) -> None:
    (tmp_path / "a").touch()
    assert refusal(tmp_path / "a", UndecodableAudio) == "The file is empty."


@pytest.mark.parametrize("content", [b"\x00", b"\xfe\x01\x80", np.random.default_rng(1).bytes(50_000), bytes(5_000)])
def test_bytes_that_nobody_knows_are_unsupported(content, tmp_path) -> None:
    (tmp_path / "a").write_bytes(content)
    message = refusal(tmp_path / "a", UnsupportedAudio)
    assert message == "The file is no audio or video format that whisperd knows."


def test_no_mutation_of_a_small_file_gets_past_the_two_errors(tmp_path, clip, encode) -> None:
    random = np.random.default_rng(11)
    path = tmp_path / "mutant"
    for name, codec in (("a.m4a", "aac"), ("a.flac", "flac"), ("a.ogg", "libopus"), ("a.wav", "pcm_s16le")):
        whole = encode(tmp_path / name, clip("en001.flac")[:8_000], codec, rate=48_000).read_bytes()
        for _ in range(40):
            content = bytearray(whole)
            for place in random.integers(0, len(whole), random.integers(1, 30)):
                content[int(place) if random.random() < 0.5 else int(place) % 200] = int(random.integers(256))
            path.write_bytes(content)
            try:
                decode(path, audio_s=60, wall_s=5)
            except (UnsupportedAudio, UndecodableAudio, AudioTooLong):
                continue


def test_a_track_that_appears_after_opening_does_no_harm(tmp_path, clip, encode) -> None:
    original = clip("en001.flac")
    content = encode(tmp_path / "a.ts", original, "aac", rate=48_000).read_bytes()
    packet = b"G\x41\xff\x10\0\0\1\xc0\0\0\x80\0\0" + bytes(175)  # a track that no table names
    (tmp_path / "b.ts").write_bytes(content + packet * 40)
    heard, _ = decode(tmp_path / "b.ts")
    assert len(heard) == pytest.approx(len(original), rel=0.05)


def test_a_file_that_points_before_its_own_start_gets_an_error(tmp_path, clip, encode) -> None:
    path = encode(tmp_path / "a.m4a", clip("en001.flac"), "aac", container="ipod")
    with path.open("rb", buffering=0) as source:
        file = _Nameless(source, math.inf)
        assert file.seek(-5) < 0
        assert file.seek(5) == 5
        assert file.seek(1 << 70) < 0


# --- hostile files ---


def test_a_film_without_sound_is_told_so(tmp_path, encode) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as output:
        stream = output.add_stream("mpeg4", rate=10, width=64, height=64, pix_fmt="yuv420p")
        for _ in range(10):
            output.mux(stream.encode(av.VideoFrame(64, 64, "yuv420p")))
        output.mux(stream.encode(None))
    assert refusal(tmp_path / "a.mp4", UnsupportedAudio) == "The container holds no sound track."


@pytest.mark.parametrize("tail", [b"", b"\n# \xff is no text\n"])
def test_a_list_of_files_opens_none_of_them(tail, tmp_path, clip, encode, monkeypatch) -> None:
    encode(tmp_path / "secret.wav", clip("en001.flac"), "pcm_s16le")
    (tmp_path / "a").write_bytes(b"ffconcat version 1.0\nfile secret.wav" + tail)
    monkeypatch.chdir(tmp_path)
    refusal(tmp_path / "a", UnsupportedAudio)


@pytest.mark.parametrize(
    "content",
    [
        b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 5004 RTP/AVP 0\r\n\xff bad",
        b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n# \xff is no text\n",
    ],
)
def test_a_playlist_disguised_by_a_bad_byte_is_unsupported(content, tmp_path) -> None:
    (tmp_path / "a.m3u8").write_bytes(content)
    refusal(tmp_path / "a.m3u8", UnsupportedAudio, wall_s=2)


def test_cover_art_of_gigabytes_is_never_decoded(tmp_path, clip, encode) -> None:
    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    packer = zlib.compressobj(1)
    line = bytes(1 + 8_000 * 3)
    pixels = b"".join([*(packer.compress(line) for _ in range(8_000)), packer.flush()])
    header = struct.pack(">IIBBBBB", 8_000, 8_000, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    block = struct.pack(">II", 3, 9) + b"image/png" + struct.pack(">IIIIII", 0, 8_000, 8_000, 24, 0, len(png)) + png
    flac = encode(tmp_path / "a.flac", clip("en001.flac"), "flac").read_bytes()
    bomb = flac[:42] + bytes([6]) + len(block).to_bytes(3, "big") + block + flac[42:]
    assert flac[4] == 0, "STREAMINFO comes first and is not the last block"
    (tmp_path / "bomb.flac").write_bytes(bomb)
    program = (
        "import sys, resource; from app.audio.decode import Sound; sound = Sound(sys.argv[1], 60, 10);"
        "list(sound.blocks());"
        "print(sound.samples, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    # Through a shell that forks again: the peak of a process counts what it was before its exec, which is these tests.
    command = ["sh", "-c", '"$0" "$@"; exit $?', sys.executable, "-c", program, str(tmp_path / "bomb.flac")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    samples, peak = map(int, done.stdout.split())
    assert samples == len(clip("en001.flac"))
    assert peak / (1 if sys.platform == "linux" else 1024) < 150 * 1024


# --- limits ---


def test_a_recording_that_declares_more_than_the_limit_is_refused_before_decoding(tmp_path, minute, encode) -> None:
    path = encode(tmp_path / "a.flac", minute, "flac")
    with pytest.raises(AudioTooLong, match="lasts 57 seconds; the limit is 30 seconds"):
        Sound(str(path), 30, 60)


def test_a_recording_that_declares_nothing_is_refused_when_the_limit_is_reached(tmp_path, minute, encode) -> None:
    path = encode(tmp_path / "a.aac", minute, "aac", container="adts")
    with Sound(str(path), 40, 60) as sound, pytest.raises(AudioTooLong, match="longer than 40 seconds"):
        list(sound.blocks())
    assert 40 * 16_000 < sound.samples < 41 * 16_000


def test_decoding_ends_when_its_time_is_over(tmp_path, minute, encode) -> None:
    path = encode(tmp_path / "a.flac", minute, "flac")
    assert refusal(path, UndecodableAudio, wall_s=0) == "Decoding the file takes too long."
    with Sound(str(path), 100, 60) as sound:
        blocks = sound.blocks()
        next(blocks)
        sound._deadline = 0
        with pytest.raises(UndecodableAudio, match="too long"):
            list(blocks)


def test_blocks_are_small_and_come_before_the_file_is_read(tmp_path, minute, encode) -> None:
    path = encode(tmp_path / "a.flac", np.tile(minute, 5), "flac")
    with Sound(str(path), 1000, 60) as sound:
        first = list(itertools.islice(sound.blocks(), 4))
        assert sound._file.tell() < path.stat().st_size / 2
    assert all(len(block) <= 16_000 and block.dtype == np.int16 for block in first)


def test_a_pipe_or_a_folder_is_no_source(tmp_path) -> None:
    assert "regular file" in refusal("/dev/null", UndecodableAudio)


def test_what_a_cut_off_file_promised_and_did_not_hold_is_known(tmp_path, minute, encode) -> None:
    path = encode(tmp_path / "a.flac", minute, "flac")
    whole, sound = decode(path)
    assert sound.missing_s == 0
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    half, sound = decode(path)
    assert sound.missing_s == pytest.approx((len(whole) - len(half)) / 16_000, abs=0.2)


@pytest.mark.parametrize(("name", "codec"), [("a.webm", "libopus"), ("a.ogg", "libopus")])
def test_a_hole_in_the_middle_of_a_file_is_known(name, codec, tmp_path, minute, encode) -> None:
    path = encode(tmp_path / name, minute, codec, rate=48_000)
    whole, sound = decode(path)
    assert sound.missing_s < 0.1
    content = bytearray(path.read_bytes())
    middle, size = len(content) // 2, len(content) // 10
    content[middle : middle + size] = bytes(size)
    path.write_bytes(content)
    rest, sound = decode(path)
    lost = (len(whole) - len(rest)) / 16_000
    assert lost > 3
    assert sound.missing_s == pytest.approx(lost, abs=1)


@pytest.mark.parametrize(
    ("container", "codec"),
    [("mp3", "mp3"), ("adts", "aac"), ("ipod", "aac"), ("flac", "flac"), ("ogg", "libopus"), ("matroska", "libopus"),
     ("mpegts", "aac")],
)  # fmt: skip
def test_a_file_that_is_damaged_in_its_middle_is_heard_but_for_that(
    container, codec, tmp_path, minute, encode, figure
) -> None:
    path = encode(tmp_path / "a", minute, codec, container=container, rate=48_000)
    whole, _ = decode(path)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 400] = bytes(400)
    path.write_bytes(content)
    rest, sound = decode(path)
    figure(7, f"{container} {100 * len(rest) / len(whole):.1f} %")
    assert len(rest) >= 0.95 * len(whole)
    lost = (len(whole) - len(rest)) / 16_000
    assert lost < 1 or sound.missing_s == pytest.approx(lost, abs=1)
