"""How a command ends when it is told to: SIGTERM and SIGHUP, as clusters send them, and SIGINT (Ctrl-C).

A thread waits for the signal, so it is heard while the main thread is inside a compiled program. It lets a file that
is being written be finished, has what was trained saved, says in one line how to go on, and ends the process with
128 + the signal's number. A second signal ends it at once, and so does the end of its patience.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
WRITING, SAVING = 2.0, 4.5
"""Seconds after the signal that a file may still take to be written, and everything to be saved."""

BUSY = threading.RLock()
"""Held while files are being written; who stops the process waits for it."""

_savers: list[Callable[[], None]] = []
_mends: list[Callable[[], str]] = []
_ends: list[Callable[[], None]] = []
_last: list[str] = []
_installed = False
_errors = 2
"""Standard error as it was at the start: it may be pointed elsewhere meanwhile (see data/readers.py)."""


def install() -> None:
    """From here on the signals end this process as this module says; one that is ignored (nohup) stays ignored."""
    global _installed, _errors  # noqa: PLW0603
    if _installed:
        return
    _installed = True
    _open_standard_streams()
    _errors = os.dup(2)
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
def mend(how: Callable[[], str]) -> Iterator[None]:
    """While its block runs, a stop says that the work goes on so, as it stands then."""
    _mends.append(how)
    try:
        yield
    except Exception:
        _last[:] = [how()]
        raise
    finally:
        _mends.remove(how)


def how_to_go_on() -> str:
    """How the work goes on that is being done, or that an error has just ended; empty where nobody has said."""
    return _mends[0]() if _mends else "".join(_last)


def at_end(clean: Callable[[], None]) -> None:
    """Has this called, too, before a signal ends the process."""
    _ends.append(clean)


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
    ours = {getattr(signal, name) for name in SIGNALS}
    while (number := os.read(reading, 1)[0]) not in ours:  # another's, with a handler of its own
        pass
    name = signal.Signals(number).name
    threading.Timer(SAVING, _end, (number, f"stopped by {name}; saving took too long")).start()
    threading.Thread(target=_save, args=(number, name), name="saving", daemon=True).start()
    while os.read(reading, 1)[0] not in ours:
        pass
    _end(number, f"stopped by {name} at once; what was saved can be resumed or deleted")


def _save(number: int, name: str) -> None:
    said = f"stopped by {name}"
    try:
        quiet = BUSY.acquire(timeout=WRITING)
        for save in reversed(_savers) if quiet else ():
            save()
    except Exception as error:  # whatever it is, the process has to end, and to say so
        said += f"; saving failed ({error})"
    how = how_to_go_on()
    _end(number, said + (f"; go on with: {how}" if how else "; what was saved can be resumed or deleted"))


def _end(number: int, said: str) -> None:
    start = "\n" if os.isatty(_errors) else ""
    with contextlib.suppress(OSError):
        os.write(_errors, f"{start}error: {' '.join(said.split())}\n".encode())
    for clean in _ends:
        with contextlib.suppress(Exception):
            clean()
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
