"""How far the work is, for somebody who watches: bars on a terminal, and nothing elsewhere."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Self

from tqdm import tqdm

#: Longer names are cut at their front: the end tells files apart.
_NAME = 32


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a recording stands: its share that is ``sent`` to a server; then its ``place`` in the queue, while others
    go first; then the seconds of it that are done. ``left_s`` is when it should be over, None while nobody knows.
    """

    sent: float = 0.0
    place: int = 0
    done_s: float = 0.0
    audio_s: float = 0.0
    left_s: float | None = None


OnProgress = Callable[[Progress], None]


def about(seconds: float) -> str:
    """A time as people say it."""
    minutes = round(seconds / 60)
    if round(seconds) < 60:
        return f"{max(1, round(seconds))} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


class Bars:
    """A bar for the recording in work, and one for all of ``sizes`` (bytes) where there are several; none stays."""

    def __init__(self, sizes: list[int]) -> None:
        self._shown = sys.stderr.isatty()
        self._count, self._over = len(sizes), 0
        self._bytes, self._done = sum(sizes), 0
        several = self._shown and self._count > 1
        self._all = tqdm(total=self._bytes, disable=not several, leave=False)
        self._begun = time.monotonic()
        self._overall(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._all.close()

    @contextlib.contextmanager
    def recording(self, name: str, size: int) -> Iterator[OnProgress]:
        """Give what is to be called as the recording of ``size`` bytes comes along."""
        short = name if len(name) <= _NAME else f"…{name[1 - _NAME :]}"
        begun: list[float] = []
        with tqdm(disable=not self._shown, leave=False, bar_format="{desc}") as bar:
            _note(bar, short, "starting")

            def show(now: Progress) -> None:
                if now.place:
                    wait = f", about {about(now.left_s)}" if now.left_s else ""
                    _note(bar, short, f"waiting, place {now.place}{wait}")
                elif now.audio_s:
                    if not begun:
                        begun.append(time.monotonic())
                    _draw(bar, short, now, time.monotonic() - begun[0])
                    self._overall(round(size * min(1.0, now.done_s / now.audio_s)))
                elif now.sent:
                    _note(bar, short, f"sending, {now.sent:.0%}" if now.sent < 1 else "sent")

            try:
                yield show if self._shown else lambda _: None
            finally:
                self._done += size
                self._over += 1
                self._overall(0)

    def say(self, line: str) -> None:
        """A line on standard error, above the bars."""
        tqdm.write(line, file=sys.stderr)

    def print(self, text: str) -> None:
        """Text on standard output, as it is; bars step aside."""
        tqdm.write(text, file=sys.stdout, end="" if text.endswith("\n") else "\n")
        sys.stdout.flush()

    def _overall(self, of_this: int) -> None:
        """Draw the bar of all; ``of_this`` recording's bytes are done."""
        done = self._all.n = self._done + of_this
        passed = time.monotonic() - self._begun
        left = f", about {about(passed * (self._bytes - done) / done)} left" if 0 < done < self._bytes else ""
        _form(self._all, "All", f"{self._over} of {self._count} files{left}")


def _draw(bar: tqdm, name: str, now: Progress, passed: float) -> None:
    left = now.left_s
    if left is None and now.done_s:
        left = passed * (now.audio_s - now.done_s) / now.done_s
    bar.total, bar.n = now.audio_s, min(now.done_s, now.audio_s)
    said = f", about {about(left)} left" if left else ""
    _form(bar, name, f"{now.done_s:.0f} of {now.audio_s:.0f} s{said}")


def _form(bar: tqdm, name: str, text: str) -> None:
    bar.bar_format = f"{_plain(name)} {{percentage:3.0f}}%|{{bar}}| {text}"
    _show(bar)


def _note(bar: tqdm, name: str, text: str) -> None:
    bar.bar_format = f"{_plain(name)}: {text}"
    _show(bar)


def _show(bar: tqdm) -> None:
    """Draw the bar, with room behind it for the ^C that terminals show: a line that it breaks cannot be wiped out."""
    if not bar.disable:
        bar.ncols = (os.get_terminal_size(sys.stderr.fileno()).columns or 80) - 3
        bar.refresh()


def _plain(name: str) -> str:
    """A name for tqdm's format string, on which nothing moves a terminal's cursor."""
    shown = "".join(character if character.isprintable() else "?" for character in name)
    return shown.replace("{", "{{").replace("}", "}}")
