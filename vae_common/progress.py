"""Progress of long work: a bar on a terminal, elsewhere a line every half minute with the time that is left."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

EVERY = 30.0
"""Seconds between lines where standard error is no terminal."""

_T = TypeVar("_T")


class Progress:
    """Counts what is done of a total; used as a context."""

    def __init__(self, what: str, total: int, unit: str, done: int = 0):
        self.what, self.total, self.unit, self.done, self.first = what, total, unit, done, done
        self.start = self.said = time.monotonic()
        self.note = ""
        terminal = sys.stderr is not None and sys.stderr.isatty()
        self.bar: Any = None
        if terminal:
            from tqdm import tqdm

            self.bar = tqdm(desc=what, total=total, initial=done, unit=unit, file=sys.stderr)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def update(self, count: int = 1, note: str = "") -> None:
        """So many more are done; the note is shown beside."""
        self.done, self.note = self.done + count, note or self.note
        if self.bar is not None:
            self.bar.set_postfix_str(self.note, refresh=False)
            self.bar.update(count)
        elif time.monotonic() - self.said >= EVERY and self.done < self.total:
            self.said = time.monotonic()
            print(self.line(), file=sys.stderr, flush=True)

    def line(self) -> str:
        """What is done, what is left, and in what time."""
        gone = time.monotonic() - self.start
        left = gone * (self.total - self.done) / max(1, self.done - self.first)
        note = f", {self.note}" if self.note else ""
        return f"{self.what}: {self.done} of {self.total} {self.unit}s, {clock(left)} left{note}"


def clock(seconds: float) -> str:
    """Hours, minutes and seconds: 1:02:03, 2:03."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def counted(items: Iterable[_T], what: str, total: int, unit: str) -> Iterator[_T]:
    """The items, their progress shown."""
    with Progress(what, total, unit) as progress:
        for item in items:
            yield item
            progress.update()
