"""The server's connections, bounded in time and number: uvicorn by itself waits for ever, and for everybody.

A request's head must be whole in time, and its body must keep a rate. The app sees a request once the first part of its
body is here, so that who sends next to nothing takes no place in the queue. An answer that goes out before the body is
in is followed by a while of reading what still comes: closed at once, the system would reset the connection, and the
client lose the answer. Where there are too many, those go first that nothing is being done for.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import h11
from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.flow_control import CLOSE_HEADER
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from app.api import request_id
from app.api.errors import error_response
from app.api.peer import Peer
from app.errors import InvalidRequest, RequestTimeout, TooManyConnections, WhisperdError

#: Connections over the limit that are told so at once; more are cut without a word.
_REFUSED_AT_ONCE = 32
#: Seconds for a client to take its answer in when the server goes down, or needs its place.
_LAST_WORD_S = 0.3
_MALFORMED = "The request is not well-formed HTTP, or its headers are too long, or its chunks too small."


@dataclass(eq=False, slots=True)
class Connections:
    """What the connections of one server share: their bounds, and who has to go for a newcomer, the oldest first."""

    #: How many there may be.
    most: int
    #: Seconds for a head, from the connection's beginning, or on a kept one from the head's first byte.
    head_s: float = 10
    #: Every so many seconds a body must have brought so many bytes a second: speech in the thinnest Opus, sent as it is
    #: recorded, brings 750, a phone's bad link thirty times that.
    body_s: float = 10
    body_rate: int = 512
    #: Seconds for which a client may go on sending what is not wanted (nginx's figure); at the body's rate, looked at
    #: every ``linger_step_s``.
    linger_s: float = 30
    linger_step_s: float = 1
    #: Seconds for a client to take what is sent to it out of the way of more: 64 KiB at most.
    write_s: float = 60
    #: Those whose request is not yet with the app, and those that have their answer.
    waiting: dict[Connection, None] = field(default_factory=dict)
    answered: dict[Connection, None] = field(default_factory=dict)

    @property
    def protocol(self) -> type[asyncio.Protocol]:
        """What uvicorn makes its connections with."""
        return cast("type[asyncio.Protocol]", partial(Connection, self))

    @property
    def first_part(self) -> float:
        """Bytes of a body that are waited for: what must come in the first span of time."""
        return self.body_rate * self.body_s

    def make_room(self) -> bool:
        """Drop a connection that nothing is done for; False where there is none."""
        for idle in (self.waiting, self.answered):
            if idle:
                next(iter(idle)).drop()
                return True
        return False


class Connection(H11Protocol):
    """One connection: uvicorn's, with what times it."""

    def __init__(self, shared: Connections, **uvicorns: Any) -> None:
        super().__init__(**uvicorns)
        self.conn: Peer = Peer(h11.SERVER)
        self.app = cast("Any", self._serve)
        self._shared = shared
        self._timer: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        #: What the peer was at when it was last looked at; h11 says it.
        self._phase: type | None = None
        #: Bytes since the timer was set.
        self._received = 0
        #: Whether the server, not the client, held the body up when it was last looked at.
        self._held_up = False
        #: What a request fails with whose body is not waited for any longer.
        self._failure: WhisperdError | None = None
        self._lingering = False
        self._linger_until = 0.0
        self._going_down = False

    # --- what happens to it ---

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        most = self._shared.most
        if len(self.connections) <= most or self._shared.make_room():
            self._follow()
            self._after(self._shared.head_s, self._head_is_late)
        elif len(self.connections) <= most + _REFUSED_AT_ONCE:
            self._answer(TooManyConnections("The server has too many connections; try again."))
            self._shared.answered.pop(self, None)  # not to be dropped for the next one before it is read
        else:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        if self._lingering or self.conn.fault:
            return
        super().data_received(data)
        self._follow()
        if self.conn.their_state is h11.IDLE and self._timer is None:
            self._after(self._shared.head_s, self._head_is_late)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._follow()

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        self.resume_writing()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled = self.loop.call_later(self._shared.write_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def shutdown(self) -> None:
        self._going_down = True
        if self._lingering:
            self._after(_LAST_WORD_S, self.transport.abort)
        else:
            super().shutdown()

    def drop(self) -> None:
        """Close it for a newcomer, with a moment for what the client has not yet read."""
        self._leave()
        self.connections.discard(self)
        self.transport.close()
        self.loop.call_later(_LAST_WORD_S, self.transport.abort)

    def break_off(self, error: WhisperdError) -> None:
        """Wait no longer for the body: its request fails with ``error``. Harmless where no body is under way."""
        if self.cycle is not None and self.cycle.more_body and not self.cycle.response_complete:
            self._failure = error
            self.cycle.message_event.set()

    # --- a request ---

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The app, which a body that is broken off fails in, and whose early answer the client gets to see."""
        cycle = self.cycle
        while cycle.more_body and len(cycle.body) < self._shared.first_part:
            if cycle.disconnected or cycle.waiting_for_100_continue or self._failure is not None:
                break
            cycle.message_event.clear()
            await cycle.message_event.wait()  # and leave it set, for the app's first look at the body
        self._shared.waiting.pop(self, None)

        async def receive_in_time() -> Message:
            message = await receive()
            if self._failure is not None and message.get("more_body"):
                raise self._failure
            return message

        async def send_and_linger(message: Message) -> None:
            if not cycle.more_body or cycle.disconnected:
                await send(message)
            elif message["type"] == "http.response.start":
                await send({**message, "headers": [*message.get("headers", ()), CLOSE_HEADER]})
            elif message.get("more_body"):
                await send(message)
            else:
                # What uvicorn does at an answer's end, except that it closes.
                await send({**message, "more_body": True})
                if not cycle.disconnected:
                    self.transport.write(self.conn.send(h11.EndOfMessage()))
                    cycle.response_complete = True
                    self._linger()

        await cast("Any", self.config.loaded_app)(scope, receive_in_time, send_and_linger)

    def _follow(self) -> None:
        """Time what the peer is at, if that is something else than before."""
        if self._lingering:
            return
        if self.conn.fault:
            self._refuse(InvalidRequest(_MALFORMED))
            return
        phase = self.conn.their_state
        if phase is self._phase:
            return
        self._stop_timer()
        self._phase, self._received = phase, 0
        if phase is h11.IDLE:
            self._shared.waiting[self] = None
        elif phase is h11.SEND_BODY:
            self._failure, self._held_up = None, False
            self._after(self._shared.body_s, self._check_rate)
        else:
            self._shared.waiting.pop(self, None)

    def _refuse(self, error: WhisperdError) -> None:
        """Answer ``error`` in the place of the request that is under way, or that was not to be made out."""
        self._stop_timer()
        if self.cycle is None or self.cycle.response_complete:
            self._answer(error)
        else:
            self.break_off(error)

    def _answer(self, error: WhisperdError) -> None:
        """Send ``error`` without the app, which knows of no request, and end the connection."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()
            return
        response = error_response(error)
        identity = (request_id.HEADER.lower().encode(), request_id.refused(error.status).encode())
        headers = [*self.server_state.default_headers, *response.raw_headers, identity, CLOSE_HEADER]
        head = h11.Response(status_code=error.status, headers=headers, reason=STATUS_PHRASES[error.status])
        for event in (head, h11.Data(data=bytes(response.body)), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event))
        self._linger()

    # --- time ---

    def _head_is_late(self) -> None:
        if self._received:
            self._answer(RequestTimeout(f"The request's head took longer than {self._shared.head_s:g} s."))
        else:
            self.transport.close()  # browsers open connections in case; they expect no answer

    def _check_rate(self) -> None:
        held_up = self.flow.read_paused or self.cycle.waiting_for_100_continue
        # What was held up a moment ago is measured anew.
        if not (held_up or self._held_up) and self._received < self._shared.body_rate * self._shared.body_s:
            self._refuse(RequestTimeout("The request's body came too slowly; send it again over a better connection."))
            return
        self._held_up, self._received = held_up, 0
        self._after(self._shared.body_s, self._check_rate)

    def _linger(self) -> None:
        """Read on, and throw away, until the client hangs up or goes on for too long."""
        self._leave()
        self._unset_keepalive_if_required()
        self._lingering, self._received = True, 0
        self._shared.answered[self] = None
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            with contextlib.suppress(OSError):  # the client is gone already
                self.transport.write_eof()
        if self._going_down:
            self._after(_LAST_WORD_S, self.transport.abort)
        else:
            self._linger_until = self.loop.time() + self._shared.linger_s
            self._after(self._shared.linger_step_s, self._check_linger)

    def _check_linger(self) -> None:
        too_slow = self._received < self._shared.body_rate * self._shared.linger_step_s
        if too_slow or self.loop.time() > self._linger_until:
            self.transport.abort()
            return
        self._received = 0
        self._after(self._shared.linger_step_s, self._check_linger)

    def _after(self, seconds: float, act: Callable[[], None]) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(seconds, act)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _leave(self) -> None:
        """Be neither timed nor among those that may be dropped."""
        self._stop_timer()
        self._shared.waiting.pop(self, None)
        self._shared.answered.pop(self, None)
