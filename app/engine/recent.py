"""Jobs that the same work meets again: those that run, and for a short life those that ended well or that nobody waits
for any more.

SDKs that lose patience send the same hour of audio again, twice: it must cost the device nothing.
"""

from __future__ import annotations

import time

from app.engine.job import Job, Work

#: Most jobs kept besides the running ones, and the seconds of audio of all their results, which bound their memory.
_MOST_JOBS = 32
_MOST_AUDIO_S = 6 * 3600.0


class Recent:
    """``life_s`` is how long a job is kept once it does not run; 0 keeps none."""

    def __init__(self, life_s: float) -> None:
        self.life_s = life_s
        self._jobs: dict[Work, Job] = {}
        #: When each job that does not run is given up (monotonic), the oldest first.
        self._until: dict[Job, float] = {}

    def find(self, work: Work) -> Job | None:
        return self._jobs.get(work)

    def add(self, job: Job) -> None:
        """A job runs, for the first time or again."""
        self._until.pop(job, None)
        if job.work.digest:
            self._jobs.setdefault(job.work, job)

    def keep(self, job: Job) -> bool:
        """A job runs no longer. Whether it is kept: only where it is the one that its work would meet."""
        if not self.life_s or self._jobs.get(job.work) is not job:
            return False
        self._until.pop(job, None)  # the newest comes last
        self._until[job] = time.monotonic() + self.life_s
        return True

    def forget(self, job: Job) -> None:
        """Let a job go; harmless where it is not here."""
        self._until.pop(job, None)
        if self._jobs.get(job.work) is job:
            del self._jobs[job.work]

    def outlived(self) -> list[Job]:
        """Jobs whose life is over or for whom there are too many, still to be forgotten."""
        now, kept, audio, over = time.monotonic(), 0, 0.0, []
        for job, until in reversed(self._until.items()):
            kept, audio = kept + 1, audio + job.progress.duration
            if until <= now or kept > _MOST_JOBS or (audio > _MOST_AUDIO_S and kept > 1):
                over.append(job)
        return over

    def oldest_parked(self) -> Job | None:
        """The parked job that has waited longest, to make room on the disk."""
        return next((job for job in self._until if job.parked), None)
