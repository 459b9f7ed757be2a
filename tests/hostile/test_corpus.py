"""Every odd and bad file of the corpus over HTTP, one after the other and eight at once, against one server."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import psutil
import pytest

from app.engine.decoders import MEMORY_LIMIT
from tests.conftest import Server, StartServer, word_error_rate
from tests.hostile import corpus
from tests.hostile.corpus import NAMES, NOTHING, TEXT, TYPES, Case
from tests.hostile.media import CLIP

MIB = 2**20
#: What the HTTP process may grow by over all files.
GROWTH = 64 * MIB
#: What a bomb may take between two looks at its decoder.
OVERSHOOT = 50 * MIB
#: micro's errors on the clip through a telephone's codec.
ERRORS = 0.2
BOUNDARY = "hostile"


@pytest.fixture(scope="module")
def warm(start_server: StartServer) -> Server:
    """A server of this module's own, for its memory is measured; it has seen a file and its errors."""
    server = start_server(backend="faster-whisper", model="micro")
    for _ in range(8):
        assert server.transcribe(CLIP.path).status_code == 200
    return server


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return list(corpus.cases())


def post(server: Server, case: Case, took: list[float] | None = None) -> httpx.Response:
    """As a browser would send it, who writes quotes and line ends of a name as percent signs and all else as it is."""
    name = case.file_name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="language"\r\n\r\nen\r\n'
    head += f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
    head += f"Content-Type: {case.content_type}\r\n\r\n"
    content = head.encode() + case.content + f"\r\n--{BOUNDARY}--\r\n".encode()
    begun = time.monotonic()
    try:
        answer = httpx.post(
            f"{server.url}/v1/audio/transcriptions",
            content=content,
            headers={"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"},
            timeout=120,
        )
    except httpx.HTTPError as error:
        pytest.fail(f"{case.name}: {error!r}")
    if took is not None:
        took.append(time.monotonic() - begun)
    return answer


def complaint(case: Case, response: httpx.Response) -> str:
    """What is wrong with the answer, in a line; empty where it is as it should be."""
    said = f"{case.name}: {response.status_code} {response.text[:300]}"
    if response.status_code != case.status:
        return said
    if case.status == 200:
        text = response.json()["text"]
        if case.expected == NOTHING:
            return said if text else ""
        return said if case.expected == TEXT and word_error_rate([CLIP.text], [text]) > ERRORS else ""
    error = response.json()["error"]
    sentence = error["message"]
    fine = error["code"] == case.expected and case.finding in sentence and sentence[0].isupper() and sentence[-1] == "."
    return "" if fine else said


@contextmanager
def largest_decoder(server: Server) -> Iterator[list[int]]:
    """A list whose only entry is the most bytes that any decoder of the server was seen to hold."""
    most, over = [0], threading.Event()

    def watch() -> None:
        while not over.is_set():
            for child in server.children("app.worker.decoder"):
                try:
                    most[0] = max(most[0], child.memory_info().rss)
                except psutil.Error:
                    continue
            time.sleep(0.01)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield most
    finally:
        over.set()
        thread.join()


def spooled(server: Server) -> list[str]:
    return [str(path) for path in (server.log.parent / "state" / "spool").glob("server-*/job-*")]


def resident(server: Server) -> int:
    return int(psutil.Process(server.pid).memory_info().rss)


def grown(before: int, server: Server) -> float:
    """MiB by which the HTTP process is larger than ``before``."""
    return (resident(server) - before) / MIB


def test_the_corpus_is_large_and_every_lie_is_told(cases: list[Case]) -> None:
    assert len(cases) >= 150
    assert len({case.name for case in cases}) == len(cases)
    assert {case.file_name for case in cases} == set(NAMES)
    assert {case.content_type for case in cases} == set(TYPES)
    assert [case for case in corpus.cases() if "flac" in case.name] == [case for case in cases if "flac" in case.name]


@pytest.mark.parametrize("at_once", [1, 8])
def test_every_file_gets_its_answer(warm: Server, cases: list[Case], at_once: int, figure: Callable[..., None]) -> None:
    before, took = resident(warm), list[float]()
    with largest_decoder(warm) as most, ThreadPoolExecutor(at_once) as pool:
        answers = list(pool.map(lambda case: post(warm, case, took), cases))
    middle, late = statistics.median(took), statistics.quantiles(took, n=100)[98]
    serious = sum(answer.status_code >= 500 for answer in answers)
    times = f"{middle:.2f} s p50, {late:.2f} p99, {max(took):.2f} worst"
    what = f"{len(cases)} files, {at_once} at once: {serious} x 5xx, {times}"
    figure(1, what, holds=at_once > 1 or (late <= 1 and max(took) <= 5))
    figure(
        2, f"{at_once} at once: largest decoder {most[0] / MIB:.0f} MiB, HTTP process {grown(before, warm):+.0f} MiB"
    )
    assert not [answer.text for answer in answers if answer.status_code >= 500]
    wrong = [line for case, answer in zip(cases, answers, strict=True) if (line := complaint(case, answer))]
    assert not wrong, "\n".join(wrong)
    assert grown(before, warm) <= GROWTH / MIB
    assert 0 < most[0] <= MEMORY_LIMIT + OVERSHOOT
    assert spooled(warm) == []
    assert warm.transcribe(CLIP.path).status_code == 200


def test_no_answer_and_no_line_of_the_log_repeats_a_claimed_name(warm: Server) -> None:
    for number, name in enumerate(NAMES):
        case = Case("text", f"secret{number}".encode(), f"CANARY{name}", "text/plain", 400, corpus.UNKNOWN)
        assert "CANARY" not in post(warm, case).text
    assert "CANARY" not in warm.log.read_text()
