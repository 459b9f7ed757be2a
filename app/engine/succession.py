"""Who does a model's jobs: the first of the operator's backends that can. Pure: no process, no clock, no I/O.

A backend whose worker cannot load the model, or dies three times in a minute, is put aside for a rest; meanwhile the
next in line takes its jobs. Whoever is warm stays until the device has nothing to do. Where all of a line rest, one is
tried again as soon as it is not refused any more: ten seconds after a failed load, and once a minute has passed since
the first of three deaths. Times are seconds of any clock that runs forward.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from app.backends.base import LoadOptions
from app.errors import BackendUnavailable

#: This many deaths with a model within the window open its breaker: something is wrong that a restart does not mend.
_DEATHS = 3
_DEATHS_WINDOW_S = 60.0
#: After a failed load, requests are refused for so long before it is tried again.
_LOAD_RETRY_S = 10.0
#: A rest that follows on another is twice as long, up to so many times the first.
_LONGEST_REST = 6
#: So many recordings that killed a worker are remembered.
_MOST_KILLERS = 256


@dataclass(frozen=True, slots=True)
class Candidate:
    """A backend for a model, which lies in the folder ``model_path`` and is loaded with the options ``load``;
    ``missing`` says why the backend cannot have the model on this machine, "" where it can.
    """

    backend: str
    model_path: str = ""
    load: LoadOptions = field(default_factory=LoadOptions, compare=False)
    missing: str = field(default="", compare=False)


#: The candidates for a model, in the operator's order.
Line = tuple[Candidate, ...]


@dataclass(slots=True)
class _Record:
    """What became of a candidate: ``state`` is ``failed`` (the load did), ``broken`` (it keeps dying) or ""."""

    state: str = ""
    reason: str = ""
    deaths: deque[float] = field(default_factory=lambda: deque(maxlen=_DEATHS))
    #: Deaths in a row while the model was loading, however long that took.
    stillborn: int = 0
    refused_until: float = float("-inf")
    rests_until: float = float("-inf")
    rest_s: float = 0.0


class Succession:
    """``rest_s`` is how long a backend is put aside; rests in a row double, up to six times that."""

    def __init__(self, rest_s: float = 600.0) -> None:
        self._rest_s = rest_s
        self._records: dict[Candidate, _Record] = {}
        #: Recording -> whose worker it killed first.
        self._killers: dict[str, Candidate] = {}

    # --- whose turn it is ---

    def turn(self, line: Line, now: float, warm: Candidate | None = None) -> Candidate | None:
        """Who takes the next step of a job of this line, ``warm`` being loaded; None where all are refused."""
        if warm in line:
            return warm
        rested = self._first_rested(line, now)
        return rested or next((each for each in _there(line) if now >= self._record(each).refused_until), None)

    def unasked(self, line: Line, now: float) -> Candidate | None:
        """Whom an idle device loads: after a failed load one waits for a request, or the end of its rest."""
        rested = self._first_rested(line, now)
        broken = (each for each in _there(line) if self._record(each).state == "broken")
        return rested or next((each for each in broken if now >= self._record(each).refused_until), None)

    def better(self, line: Line, now: float, warm: Candidate) -> Candidate | None:
        """Who should have the place of ``warm`` again: its rest is over, and it comes before it in line."""
        return self._first_rested(line[: line.index(warm)], now) if warm in line else None

    def state(self, candidate: Candidate, now: float) -> str:
        """``missing``, ``failed`` or ``broken``; "" for one that may be loaded."""
        resting = now < self._record(candidate).rests_until
        return "missing" if candidate.missing else self._record(candidate).state if resting else ""

    def reason(self, candidate: Candidate) -> str:
        """The sentence to its state."""
        return candidate.missing or self._record(candidate).reason

    def refusal(self, line: Line) -> BackendUnavailable:
        """What to say where it is nobody's turn."""
        if len(line) == 1:
            return BackendUnavailable(self.reason(line[0]))
        said = (f"{each.backend}: {self.reason(each)}" for each in line if self.reason(each))
        return BackendUnavailable(f"No backend can do this now. {' '.join(said)}")

    # --- what happened ---

    def loaded(self, candidate: Candidate, now: float) -> None:
        record = self._record(candidate)
        record.state, record.reason, record.stillborn = "", "", 0
        record.rests_until = min(record.rests_until, now)

    def failed(self, candidate: Candidate, message: str, now: float) -> None:
        """Its load failed, and ``message`` says why."""
        reason = f"The model could not be loaded: {message}"
        self._put_aside(candidate, "failed", reason, now, refused_until=now + _LOAD_RETRY_S)

    def died(self, candidate: Candidate, now: float, *, loading: bool = False, recording: str = "") -> None:
        """Its worker died: while ``loading``, in a step of ``recording``, or idle.

        Where the recording killed another's worker before, it is to blame, and this candidate is not.
        """
        if recording:
            first = self._killers.setdefault(recording, candidate)
            if len(self._killers) > _MOST_KILLERS:
                del self._killers[next(iter(self._killers))]
            if first != candidate:
                return
        record = self._record(candidate)
        record.deaths.append(now)
        record.stillborn += loading
        if len(record.deaths) == _DEATHS and now - record.deaths[0] < _DEATHS_WINDOW_S:
            reason = f"The worker died {_DEATHS} times within {_DEATHS_WINDOW_S:.0f} s."
            closed = record.deaths[0] + _DEATHS_WINDOW_S
            self._put_aside(candidate, "broken", reason, now, refused_until=closed)
        elif record.stillborn >= _DEATHS:
            reason = f"The worker died {_DEATHS} times while it loaded the model."
            self._put_aside(candidate, "broken", reason, now, refused_until=now + _DEATHS_WINDOW_S)

    def _put_aside(self, candidate: Candidate, state: str, reason: str, now: float, *, refused_until: float) -> None:
        record = self._record(candidate)
        in_a_row = record.rest_s and now < record.rests_until + self._rest_s
        record.rest_s = min(2 * record.rest_s, _LONGEST_REST * self._rest_s) if in_a_row else self._rest_s
        record.state, record.reason = state, reason
        record.refused_until = refused_until
        record.rests_until = now + record.rest_s

    def _first_rested(self, line: Line, now: float) -> Candidate | None:
        return next((each for each in _there(line) if now >= self._record(each).rests_until), None)

    def _record(self, candidate: Candidate) -> _Record:
        return self._records.setdefault(candidate, _Record())


def _there(line: Line) -> Line:
    return tuple(each for each in line if not each.missing)
