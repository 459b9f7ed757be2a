"""The clients of benchmarks.chaos: they send recordings in several ways, and judge the answers."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import httpx

from benchmarks.recordings import numbered
from benchmarks.server import Server, figures
from tests.conftest import word_error_rate

RIGHT = "right"
UNFINISHED = ("queued", "running")
_URL = "/v1/audio/transcriptions"
#: Share of words that may differ from what the recording gave alone: at a step's other size sums round otherwise.
_CLOSE = 0.05
_LOOK_S = 0.1
#: What is a 503 before the stream has begun; and the seconds that such a 503 asks to wait.
_BROKEN, _BROKEN_S = "backend_unavailable in a stream", 10


@dataclass(frozen=True)
class Sound:
    """A recording, and the text that it gives when nothing else is done."""

    wav: bytes
    text: str


@dataclass
class Part:
    """What came of one part: what was done to the server and what it counted, how the requests ended that wanted a
    text, what is wrong.
    """

    name: str
    tried: int = 0
    #: The outcomes besides the text that are no loss.
    expected: tuple[str, ...] = ()
    done: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def check(self, holds: bool, otherwise: str) -> None:
        if not holds:
            self.wrong.append(otherwise)

    def lost(self) -> int:
        """How many ended in anything else than their text or what is to be expected."""
        return sum(count for name, count in self.outcomes.items() if name not in (RIGHT, *self.expected))


class Clients:
    """Connections without end to the server at ``url``; as a context."""

    def __init__(self, url: str, sounds: list[Sound], dice: random.Random, part: Part) -> None:
        limits = httpx.Limits(max_connections=None)
        self.http = httpx.AsyncClient(base_url=url, timeout=300, limits=limits)
        self._sounds, self._dice, self._part = sounds, dice, part
        self._numbers = itertools.count(1)

    async def __aenter__(self) -> Clients:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()

    def upload(self, *, shared: float = 0.0) -> tuple[Sound, bytes]:
        """Any of the recordings, in a file of its own, or one time in ``1 / shared`` in one that others send too."""
        sound = self._dice.choice(self._sounds)
        return sound, numbered(sound.wav, 0 if self._dice.random() < shared else next(self._numbers))

    async def send(self, sound: Sound, upload: bytes) -> str:
        """Send it in any of several ways, until it is answered something else than to come back later; the outcome."""
        stream, slowly = self._dice.random() < 0.3, self._dice.random() < 0.3
        fields = {"language": "en", **({"stream": "true"} if stream else {})}
        while True:
            try:
                response = await self._post(upload, fields, slowly=slowly)
            except httpx.TransportError as error:
                return f"no answer ({type(error).__name__})"
            wait = response.headers.get("Retry-After") if response.status_code in (429, 503) else None
            outcome = judged(response, sound)
            if wait is None and outcome == _BROKEN:
                wait = _BROKEN_S
            if wait is None:
                return outcome
            self._part.done[f"{outcome}, obeyed"] += 1
            await asyncio.sleep(float(wait))

    async def send_job(self, sound: Sound, upload: bytes) -> str:
        """Send it as a job on disk, and wait for its end; the outcome."""
        job_id = await self.post_job(upload)
        while (await self.http.get(f"/v1/jobs/{job_id}")).json()["status"] in UNFINISHED:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_S)
        return judged(await self.http.get(f"/v1/jobs/{job_id}/result"), sound)

    async def post_job(self, upload: bytes) -> str:
        """The id of the job that the upload became. Raises ``httpx.TransportError``, ``httpx.HTTPStatusError``."""
        headers = {"Prefer": "respond-async"}
        response = await self.http.post(_URL, files=_form(upload), data={"language": "en"}, headers=headers)
        response.raise_for_status()
        return str(response.json()["id"])

    async def _post(self, upload: bytes, fields: dict[str, str], *, slowly: bool) -> httpx.Response:
        request = self.http.build_request("POST", _URL, files=_form(upload), data=fields)
        if slowly:
            kept = {name: request.headers[name] for name in ("Content-Type", "Content-Length")}
            request = self.http.build_request("POST", _URL, content=_in_pieces(request.read()), headers=kept)
        response = await self.http.send(request)
        await response.aread()
        return response


def judged(response: httpx.Response, sound: Sound) -> str:
    """``RIGHT``, or what else the answer is."""
    if response.status_code != 200:
        return f"{response.status_code} {response.json()['error']['code']}"
    text, error = _text_of(response)
    if error:
        return f"{error} in a stream"
    return RIGHT if word_error_rate([sound.text], [text]) <= _CLOSE else "wrong text"


def _text_of(response: httpx.Response) -> tuple[str, str]:
    """The answer's text, and the error's code with which a stream ended."""
    if not response.headers["Content-Type"].startswith("text/event-stream"):
        return str(response.json()["text"]), ""
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: ")]
    events = [json.loads(line) for line in lines if line != "[DONE]"]
    last = events[-1] if events else {"error": {"code": "nothing"}}
    return str(last.get("text", "")), str(last.get("error", {}).get("code", ""))


def _form(upload: bytes) -> dict[str, tuple[str, bytes]]:
    return {"file": ("sound.wav", upload)}


async def _in_pieces(body: bytes) -> AsyncIterator[bytes]:
    size = -(-len(body) // 10)
    for start in range(0, len(body), size):
        yield body[start : start + size]
        await asyncio.sleep(0.03)


async def settled(server: Server, part: Part) -> dict[str, float]:
    """Check that nothing of all the requests is left, once they are answered; returns the server's figures."""
    for _ in range(100):
        found = await asyncio.to_thread(figures, server.url)
        if not (found["whisperd_queue_jobs"] or found["whisperd_jobs_waiting"] or _spooled(server)):
            break
        await asyncio.sleep(_LOOK_S)
    part.check(not found["whisperd_queue_jobs"], f"the queue holds {found['whisperd_queue_jobs']:.0f} requests")
    part.check(not found["whisperd_jobs_waiting"], f"{found['whisperd_jobs_waiting']:.0f} jobs on disk wait")
    part.check(not _spooled(server), f"{_spooled(server)} uploads are left in the spool")
    part.check(not list(server.state.glob("jobs/job-*")), "folders of jobs are left")
    async with httpx.AsyncClient(base_url=server.url) as http:
        part.check((await http.get("/v1/queue")).json()["data"] == [], "/v1/queue lists something")
    await asyncio.sleep(1)  # a step that runs is done to its end
    before = await asyncio.to_thread(figures, server.url)
    await asyncio.sleep(1)
    after = await asyncio.to_thread(figures, server.url)
    steps = after["whisperd_step_seconds_count"] - before["whisperd_step_seconds_count"]
    part.check(not steps, f"the device made {steps:.0f} steps for nobody")
    return after


def _spooled(server: Server) -> int:
    return len(list(server.state.glob("spool/server-*/job-*")))
