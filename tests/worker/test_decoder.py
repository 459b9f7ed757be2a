from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
import subprocess
import sys
import time
from multiprocessing import Pipe
from pathlib import Path

import numpy as np
import psutil
import pytest

from app.errors import StorageFull, UndecodableAudio
from app.transcript import Vad
from app.worker import decoder as decoder_module
from app.worker.decoder import Decoder
from app.worker.messages import Decode, Decoded, DecodeMore, Failed, Limits, Ready

CLIPS = Path(__file__).parent.parent / "data" / "audio"


@contextlib.contextmanager
def started(cwd=None):
    ours, theirs = Pipe()
    command = [sys.executable, "-m", "app.worker.decoder", str(theirs.fileno())]
    root = str(Path(__file__).parent.parent.parent)
    environment = {**os.environ, "PYTHONPATH": root}
    child = subprocess.Popen(command, pass_fds=[theirs.fileno()], cwd=cwd, env=environment)
    theirs.close()
    ours.child = child
    try:
        assert ours.poll(30)
        assert ours.recv() == Ready(child.pid)
        yield ours
    finally:
        ours.close()
        assert child.wait(5) == 0


@pytest.fixture(scope="module")
def child():
    with started() as connection:
        yield connection


def ask(child, request):
    child.send(request)
    assert child.poll(30)
    return child.recv()


def decode(child, source, pcm, limits=Limits()):  # noqa: B008 - frozen
    """All replies for one file."""
    replies = [ask(child, Decode(str(source), str(pcm), limits))]
    while isinstance(replies[-1], Decoded) and not replies[-1].done:
        replies.append(ask(child, DecodeMore()))
    return replies


@pytest.fixture(scope="module")
def long_wav(tmp_path_factory):
    """Five minutes: ten clips and their silence, over and over, as a WAV."""
    import av

    samples = []
    for i in range(10):
        with av.open(str(CLIPS / f"en{i:03}.flac")) as container:
            samples += [frame.to_ndarray()[0] for frame in container.decode(audio=0)]
    whole = np.tile(np.concatenate(samples).astype("<i2"), 10)[: 300 * 16_000]
    path = tmp_path_factory.mktemp("long") / "long.wav"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("pcm_s16le", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(whole[None], format="s16", layout="mono")
        frame.sample_rate = 16_000
        output.mux(stream.encode(frame))
    return path, whole


def test_a_short_clip_is_done_in_one_reply_and_its_pcm_is_private(child, tmp_path) -> None:
    (reply,) = decode(child, CLIPS / "en000.flac", tmp_path / "pcm")
    assert reply.done
    assert reply.samples == 60_904
    assert reply.declared_s == pytest.approx(3.807, abs=0.01)
    assert reply.bad_packets == 0
    (window,) = reply.windows
    assert window.end - window.start > 0.9 * 60_904
    assert (tmp_path / "pcm").stat().st_size == 2 * 60_904
    assert stat.S_IMODE((tmp_path / "pcm").stat().st_mode) == 0o600


def test_a_requests_own_vad_is_for_that_file_only(child, tmp_path) -> None:
    def windows(vad):
        return ask(child, Decode(str(CLIPS / "en000.flac"), str(tmp_path / "pcm"), Limits(), vad)).windows

    usual = windows(None)
    assert windows(Vad(threshold=1.0)) == ()
    (late,) = windows(Vad(padding_s=0.0))
    assert late.start == late.speech[0][0] > usual[0].start
    assert windows(None) == usual


def test_a_long_recording_comes_in_pieces_with_its_pcm_always_there(child, long_wav, tmp_path) -> None:
    path, whole = long_wav
    pcm = tmp_path / "pcm"
    replies = [ask(child, Decode(str(path), str(pcm), Limits()))]
    while not replies[-1].done:
        assert pcm.stat().st_size == 2 * replies[-1].samples
        for window in replies[-1].windows:
            assert window.end <= replies[-1].samples
        replies.append(ask(child, DecodeMore()))
    assert len(replies) >= 5
    assert replies[0].windows
    assert replies[0].samples < 60 * 16_000
    assert np.array_equal(np.fromfile(pcm, "<i2"), whole)
    windows = [window for reply in replies for window in reply.windows]
    assert windows == sorted(windows, key=lambda window: window.start)


def test_silence_is_reported_piece_by_piece_and_has_no_windows(child, tmp_path, long_wav) -> None:
    content = bytearray(long_wav[0].read_bytes())
    content[200:] = bytes(len(content) - 200)
    (tmp_path / "silence").write_bytes(content)
    replies = decode(child, tmp_path / "silence", tmp_path / "pcm")
    assert len(replies) >= 5
    assert all(reply.windows == () for reply in replies)


@pytest.mark.parametrize(
    ("content", "code", "message"),
    [
        (b"", "undecodable_audio", "The file is empty."),
        (b"{}", "unsupported_audio", "The file is a JSON document, not sound."),
        (b"\x01\x02\xff", "unsupported_audio", "The file is no audio or video format that whisperd knows."),
        (b"fLaC\xff\xff\xff", "undecodable_audio", "The FLAC file is broken and cannot be decoded."),
        (
            b"RIFF\x2c\0\0\0WAVELIST\x10\0\0\0INFOISFT\0\0\0\x80lie!",
            "undecodable_audio",
            "The file's header is broken: one of its parts claims to be larger than the file.",
        ),
    ],
)
def test_a_bad_file_fails_in_the_first_reply_and_the_next_file_is_fine(child, tmp_path, content, code, message) -> None:
    (tmp_path / "bad").write_bytes(content)
    assert decode(child, tmp_path / "bad", tmp_path / "pcm") == [Failed(code, message)]
    assert decode(child, CLIPS / "en001.flac", tmp_path / "pcm")[-1].done


def test_under_a_tenth_of_a_second_is_too_short(child, tmp_path, long_wav) -> None:
    content = long_wav[0].read_bytes()
    header = content.index(b"data") + 8
    (tmp_path / "short").write_bytes(content[: header + 2 * 1_599])
    (tmp_path / "enough").write_bytes(content[: header + 2 * 1_600])
    short = decode(child, tmp_path / "short", tmp_path / "pcm")
    assert short == [Failed("audio_too_short", "The recording is shorter than 0.1 seconds.")]
    assert decode(child, tmp_path / "enough", tmp_path / "pcm")[-1].samples == 1_600


def test_the_limit_on_sound_is_kept(child, tmp_path, long_wav) -> None:
    (reply,) = decode(child, long_wav[0], tmp_path / "pcm", Limits(audio_s=100))
    assert reply == Failed("audio_too_long", "The recording lasts 300 seconds; the limit is 100 seconds.")


def test_more_without_a_file_in_hand_is_an_invalid_request(child, tmp_path) -> None:
    decode(child, CLIPS / "en001.flac", tmp_path / "pcm")
    assert ask(child, DecodeMore()).code == "invalid_request"


def test_a_new_file_drops_the_old_one(child, tmp_path, long_wav) -> None:
    assert not ask(child, Decode(str(long_wav[0]), str(tmp_path / "old"), Limits())).done
    again = ask(child, Decode(str(CLIPS / "en000.flac"), str(tmp_path / "new"), Limits()))
    (alone,) = decode(child, CLIPS / "en000.flac", tmp_path / "alone")
    assert again == alone


def test_a_file_dropped_half_way_is_closed(tmp_path, long_wav) -> None:
    decoder = Decoder()
    decoder.handle(Decode(str(long_wav[0]), str(tmp_path / "pcm"), Limits()))
    old = decoder._recording
    with pytest.raises(UndecodableAudio):
        decoder.handle(Decode("/dev/null", str(tmp_path / "pcm"), Limits()))
    assert old._pcm.closed
    assert old._sound._file.closed
    assert decoder._recording is None


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_not_the_senders_fault(number, tmp_path, monkeypatch) -> None:
    class Full(io.BytesIO):
        def write(self, content):
            raise OSError(number, "full")

    monkeypatch.setattr(decoder_module, "_create", lambda path: Full())
    with pytest.raises(StorageFull):
        Decoder().handle(Decode(str(CLIPS / "en000.flac"), str(tmp_path / "pcm"), Limits()))


def test_a_file_that_asks_for_all_memory_is_undecodable(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(decoder_module.Recording, "piece", lambda self: _no_memory())
    with pytest.raises(UndecodableAudio, match="more memory"):
        Decoder().handle(Decode(str(CLIPS / "en000.flac"), str(tmp_path / "pcm"), Limits()))


def _no_memory():
    raise MemoryError


def test_the_child_works_where_no_relative_name_leads_anywhere(tmp_path) -> None:
    (tmp_path / "secret.wav").write_bytes((CLIPS / "en000.flac").read_bytes())
    with started(cwd=tmp_path) as child:
        reply = ask(child, Decode("secret.wav", str(tmp_path / "pcm"), Limits()))
        assert isinstance(reply, Failed)
        assert decode(child, tmp_path / "secret.wav", tmp_path / "pcm")[-1].done


def test_a_child_without_a_folder_for_temporary_files_stays_where_it_is(tmp_path) -> None:
    code = (
        "import os, tempfile; tempfile._candidate_tempdir_list = lambda: ['/proc/none']\n"
        "from app.worker.decoder import _go_nowhere\n"
        "_go_nowhere()\n"
        "print(os.getcwd())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()).samefile(tmp_path)


def test_a_warm_child_decodes_a_clip_in_milliseconds(child, tmp_path) -> None:
    seconds = []
    for _ in range(10):
        begun = time.perf_counter()
        decode(child, CLIPS / "en000.flac", tmp_path / "pcm")
        seconds.append(time.perf_counter() - begun)
    assert min(seconds) < 0.05


# --- limits of the process ---


def restrained(program):
    """What ``program`` prints in a process of its own, which may restrain itself."""
    head = "import os, resource, sys; from pathlib import Path; from app.worker import decoder as d; "
    root = str(Path(__file__).parent.parent.parent)
    command = [sys.executable, "-c", head + program]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": root}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_child_leaves_no_core_file_and_has_few_descriptors(tmp_path) -> None:
    assert restrained("d.restrain(); print(resource.getrlimit(resource.RLIMIT_CORE))") == "(0, 0)"
    program = (
        "\nd.restrain()\n"
        "try:\n"
        "    files = []\n"
        "    while len(files) < 100: files.append(open(os.devnull))\n"
        "except OSError as error:\n"
        "    print(error.errno, len(files))"
    )
    number, opened = map(int, restrained(program).split())
    assert number == errno.EMFILE
    assert 16 <= opened <= 32


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited by the system on Linux only")
def test_an_allocation_that_no_sound_needs_fails_at_once() -> None:
    program = (
        "\nd.restrain()\nkept = bytes(200 << 20)\n"
        "try:\n    more = bytes(200 << 20)\nexcept MemoryError:\n    print('refused')"
    )
    assert restrained(program) == "refused"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not show a process's limits")
def test_a_running_child_has_all_its_limits(child, tmp_path) -> None:
    decode(child, CLIPS / "en000.flac", tmp_path / "pcm", Limits(audio_s=100))
    process = psutil.Process(child.child.pid)
    assert process.rlimit(psutil.RLIMIT_CORE) == (0, 0)
    assert process.rlimit(psutil.RLIMIT_NOFILE) == (decoder_module.MAX_FILES,) * 2
    assert 0 < process.rlimit(psutil.RLIMIT_DATA)[0] < 2**31
    assert process.rlimit(psutil.RLIMIT_FSIZE)[0] == 100 * 32_000 + decoder_module.PCM_SLACK
    decode(child, CLIPS / "en000.flac", tmp_path / "pcm", Limits(audio_s=1000))
    assert process.rlimit(psutil.RLIMIT_FSIZE)[0] == 1000 * 32_000 + decoder_module.PCM_SLACK


def test_pcm_that_outgrows_the_longest_recording_is_that_recordings_fault(tmp_path) -> None:
    program = (
        "\nimport numpy as np\nfrom app.errors import AudioTooLong\nd.restrain_pcm(1)\n"
        f"file = d._create({str(tmp_path / 'pcm')!r})\n"
        "d._write(file, np.zeros(16_000, np.int16))\n"
        "try:\n    d._write(file, np.zeros(1_000_000, np.int16))\nexcept AudioTooLong:\n    print(file.tell())"
    )
    assert int(restrained(program)) == 32_000 + decoder_module.PCM_SLACK


def test_a_file_system_that_takes_no_larger_files_is_still_the_servers_fault(monkeypatch) -> None:
    class Small(io.BytesIO):
        def write(self, content):
            raise OSError(errno.EFBIG, "too large")

    with pytest.raises(OSError, match="too large"):  # which ``handle`` makes a StorageFull of
        decoder_module._write(Small(), np.zeros(10, np.int16))
