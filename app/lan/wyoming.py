"""Wyoming, the protocol by which Home Assistant talks to speech services: events over TCP, each a line of JSON with
perhaps more JSON and some bytes behind it.

What comes as chunks of samples becomes a WAV file in an upload, and goes the way of all uploads. After an error the
connection ends: Home Assistant waits for nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import socket
from collections.abc import AsyncIterator

from wyoming.asr import Transcribe, Transcript, TranscriptChunk, TranscriptStart, TranscriptStop
from wyoming.error import Error
from wyoming.event import Event, Eventable, async_write_event
from wyoming.info import AsrModel, AsrProgram, Attribution, Info
from wyoming.ping import Pong

from app import __version__
from app.catalog import Catalog
from app.engine.engine import Engine
from app.engine.job import Job, Work
from app.errors import (
    InvalidRequest,
    RequestTimeout,
    ShuttingDown,
    TooManyConnections,
    WhisperdError,
)
from app.formats import DeltaText
from app.keys import WYOMING
from app.lan.events import LINE, Reader, read_event
from app.lan.wav import WavUpload, samples_of
from app.languages import LANGUAGES, language_code
from app.log import event, request_id
from app.settings import Settings
from app.transcript import Options

#: Whose the jobs are that come this way: no key's mark, which is hexadecimal.
OWNER = WYOMING
#: Connections at once; seconds that the next event may take, and a client to take what it is sent.
MOST, IDLE_S, _SEND_S = 16, 30.0, 30.0
#: Seconds and bytes that are read on after an error: what is unread when a connection closes takes the error with it.
_LINGER_S, _LINGER_BYTES = 2.0, 16 * 2**20
#: Since then clients know of a transcript in pieces.
_STREAMING = (1, 7)


class Wyoming:
    """The server: ``start``, then ``refuse`` and ``break_off`` on its way down.

    ``busy`` gets the tasks of connections from the first sound to the answer.
    """

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        catalog: Catalog,
        busy: set[asyncio.Task[None]],
        *,
        idle_s: float = IDLE_S,
        most: int = MOST,
    ) -> None:
        self.settings = settings
        self.engine = engine
        self.catalog = catalog
        self.busy = busy
        self.idle_s = idle_s
        self._most = most
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        name_of = engine.name_owner
        engine.name_owner = lambda owner: OWNER if owner == OWNER else name_of(owner)

    async def start(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: asyncio.StreamReaderProtocol(Reader(limit=LINE), self._connected), sock=listener
        )
        event("Wyoming is served", port=listener.getsockname()[1])

    def refuse(self) -> None:
        """Take no new connections, and end those that nothing is done for."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks - self.busy:
            task.cancel()

    def break_off(self) -> None:
        """End all connections: those that are left are sending sound that nobody will hear."""
        for task in self._tasks:
            task.cancel()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert isinstance(reader, Reader)
        task = asyncio.current_task()
        assert task is not None
        request_id.set(f"wyo_{secrets.token_hex(12)}")
        connection = Connection(self, reader, writer)
        full = len(self._tasks) >= self._most
        self._tasks.add(task)
        try:
            if full:
                raise TooManyConnections("The server has too many Wyoming connections; try again later.")
            await connection.serve()
        except asyncio.CancelledError:  # going down
            if task in self.busy:
                await connection.fail(ShuttingDown("The server is going down; send the recording again."))
        except WhisperdError as error:
            await connection.fail(error)
        except (OSError, EOFError, TimeoutError):
            pass  # the client is gone, or silent
        except Exception as error:  # noqa: BLE001 - a bug must cost its connection alone, and nobody its text
            event("unexpected error in Wyoming", logging.ERROR, kind=type(error).__name__)
            await connection.fail(WhisperdError("Something went wrong in the server; its log may say more."))
        finally:
            self._tasks.discard(task)
            self.busy.discard(task)
            writer.close()

    def info(self) -> Info:
        """What Home Assistant reads when it sets the service up."""
        by = Attribution("whisperd contributors", "https://github.com/openai/whisper")
        models = [
            AsrModel(
                name=model.name,
                attribution=Attribution(model.owned_by, f"https://huggingface.co/{model.repo}" if model.repo else ""),
                installed=True,
                description=model.name,
                version=None,
                languages=["en"] if model.name.endswith(".en") else list(LANGUAGES),
            )
            for model in self.catalog.available()
        ]
        program = AsrProgram(
            name="whisperd",
            attribution=by,
            installed=True,
            description="Whisper on your own machine",
            version=__version__,
            models=models,
            supports_transcript_streaming=True,
        )
        return Info(asr=[program])


class Connection:
    """One client: recordings one after the other."""

    def __init__(self, server: Wyoming, reader: Reader, writer: asyncio.StreamWriter) -> None:
        self._server = server
        self._reader = reader
        self._writer = writer
        self._wanted = Transcribe()
        self._streams = False

    async def serve(self) -> None:
        """Answer until the client leaves. Raises ``WhisperdError`` for what ends the connection."""
        while (incoming := await self._next()) is not None:
            match incoming.type:
                case "describe":
                    await self._send(await asyncio.to_thread(self._server.info))
                case "ping":
                    await self._send(Pong(text=_text(incoming.data.get("text"))))
                case "transcribe":
                    self._wanted = Transcribe(
                        name=_text(incoming.data.get("name")), language=_text(incoming.data.get("language"))
                    )
                case "audio-start" | "audio-chunk":
                    await self._recording(incoming)
                case "audio-stop":
                    raise InvalidRequest("The recording ends before it begins: send audio-start and audio-chunk first.")
                case _:
                    pass  # as the protocol has it

    async def fail(self, error: WhisperdError) -> None:
        """Say what is wrong, and read on a little, so that the client comes to read it."""
        with contextlib.suppress(OSError, TimeoutError, asyncio.CancelledError):
            await self._send(Error(text=error.message, code=error.code))
            self._writer.write_eof()
            async with asyncio.timeout(_LINGER_S):
                read = 0
                while read < _LINGER_BYTES and (data := await self._reader.read(LINE)):
                    read += len(data)

    async def _recording(self, first: Event) -> None:
        """Take in a recording, and answer it."""
        server, task = self._server, asyncio.current_task()
        assert task is not None
        work = self._work()  # what is wrong with it shows before the sound is sent
        with contextlib.ExitStack() as held:
            server.busy.add(task)
            upload = held.enter_context(server.engine.admit())
            settings = server.settings
            sound = WavUpload(upload, settings.max_upload_mb * 2**20, settings.max_audio_s)
            with contextlib.closing(sound):
                async for incoming in self._sound(first):
                    await sound.add(*samples_of(incoming))
                await sound.finish()
            options, path, name = work
            job = held.enter_context(server.engine.submit(upload, Work(options, path, name, upload.digest, OWNER)))
            await self._answer(job)
        server.busy.discard(task)
        self._wanted = Transcribe()

    async def _sound(self, first: Event) -> AsyncIterator[Event]:
        """The events with sound or its format, from the first one until audio-stop."""
        began, got = asyncio.get_running_loop().time(), 0
        incoming: Event | None = first
        while incoming is None or incoming.type != "audio-stop":
            if incoming is None:
                raise EOFError
            if incoming.type in ("audio-start", "audio-chunk"):
                got += len(incoming.payload or b"")
                yield incoming
            # As for a body over HTTP: 1 KiB a second, or the slot is another's.
            if got < 1024 * (asyncio.get_running_loop().time() - began - self._server.idle_s):
                raise RequestTimeout("The sound came too slowly; send it again over a better connection.")
            incoming = await self._next()

    def _work(self) -> tuple[Options, str, str]:
        """Options, folder and name of the model for what the client wants. Raises as a request would."""
        model = self._server.catalog.resolve(self._wanted.name or "")
        language = language_code(self._wanted.language)
        options = Options(language=language, beam_size=self._server.settings.beam_size)
        return options, str(model.path), model.name

    async def _answer(self, job: Job) -> None:
        """Send the transcript, in pieces too where the client knows these. Raises ``EOFError`` once it has left."""
        answering = asyncio.create_task(self._transcript(job))
        leaving = asyncio.create_task(self._reader.ended.wait())
        try:
            await asyncio.wait([answering, leaving], return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                raise EOFError
            answering.result()
        finally:
            leaving.cancel()
            answering.cancel()
            await asyncio.wait([answering, leaving])

    async def _transcript(self, job: Job) -> None:
        if not self._streams:
            transcript = await job.result()
            await self._send(Transcript(text=transcript.text, language=transcript.language or None))
            return
        text, begun = DeltaText(), False
        async for segments in job.segments():
            if piece := text.push("".join(segment.text for segment in segments)):
                if not begun:
                    await self._send(TranscriptStart())
                begun = True
                await self._send(TranscriptChunk(text=piece))
        transcript = await job.result()
        if not begun:
            await self._send(TranscriptStart())
        await self._send(Transcript(text=transcript.text, language=transcript.language or None))
        await self._send(TranscriptStop())

    async def _next(self) -> Event | None:
        try:
            async with asyncio.timeout(self._server.idle_s):
                found = await read_event(self._reader)
        except TimeoutError:
            if asyncio.current_task() in self._server.busy:
                raise RequestTimeout("The sound stopped coming before audio-stop; send it again.") from None
            raise
        if found is None:
            return None
        self._streams = found.version >= _STREAMING
        return found.event

    async def _send(self, message: Eventable) -> None:
        async with asyncio.timeout(_SEND_S):
            await async_write_event(message.event(), self._writer)


def _text(value: object) -> str | None:
    """A field that should be text; None for all else."""
    return value if isinstance(value, str) else None
