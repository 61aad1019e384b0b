"""How a command ends when it is told to: SIGTERM and SIGHUP, as clusters send them, and SIGINT (Ctrl-C).

A thread waits for the signal, so it is heard while the main thread is inside a compiled program. It lets a file that
is being written be finished, has what was trained saved, says in one line how to go on, and ends the process with
128 + the signal's number.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
PATIENCE = 2.0
"""Seconds that a file may still take to be written."""

_savers: list[Callable[[], None]] = []
_mends: list[str] = []
_installed = False


def install() -> None:
    """From here on the signals end this process as this module says; one that is ignored (nohup) stays ignored."""
    global _installed  # noqa: PLW0603
    if _installed:
        return
    _installed = True
    _open_standard_streams()
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for name in SIGNALS:
        if signal.getsignal(getattr(signal, name)) is not signal.SIG_IGN:
            signal.signal(getattr(signal, name), _heard)
    os.register_at_fork(after_in_child=_forget)
    threading.Thread(target=_watch, args=(reading,), name="stopping", daemon=True).start()


@contextlib.contextmanager
def saving(save: Callable[[], None]) -> Iterator[None]:
    """While its block runs, a stop calls `save` first, from another thread."""
    _savers.append(save)
    try:
        yield
    finally:
        _savers.remove(save)


@contextlib.contextmanager
def mend(how: str) -> Iterator[None]:
    """While its block runs, a stop says that the work goes on so."""
    _mends.append(how)
    try:
        yield
    finally:
        _mends.pop()


def follow_parent() -> None:
    """Ends this process when the one that started it has gone: the pipe on its standard input is then closed."""

    def wait() -> None:
        while os.read(0, 4096):
            pass
        os._exit(1)

    threading.Thread(target=wait, name="follow-parent", daemon=True).start()


def _heard(number: int, frame: object) -> None:
    """What Python runs in the main thread: nothing. The thread has the signal already."""


def _watch(reading: int) -> None:
    number = os.read(reading, 1)[0]
    said = f"stopped by {signal.Signals(number).name}"
    try:
        from vae_common.files import BUSY

        quiet = BUSY.acquire(timeout=PATIENCE)
        for save in reversed(_savers) if quiet else ():
            save()
    except Exception as error:  # whatever it is, the process has to end, and to say so
        said += f"; saving failed ({error})"
    said += f"; go on with: {_mends[0]}" if _mends else "; what was saved can be resumed or deleted"
    start = "\n" if os.isatty(2) else ""
    with contextlib.suppress(OSError):
        os.write(2, f"{start}error: {' '.join(said.split())}\n".encode())
    os._exit(128 + number)


def _forget() -> None:
    """A forked process is a worker of this one: signals end it at once, and do not reach the parent's thread."""
    signal.set_wakeup_fd(-1)
    for name in SIGNALS:
        if signal.getsignal(getattr(signal, name)) is _heard:
            signal.signal(getattr(signal, name), signal.SIG_DFL)


def _open_standard_streams() -> None:
    """A closed stream (`2>&-`) is opened on the null device: else the next file gets its number, and its messages."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - for as long as the process lives
