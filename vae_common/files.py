"""Files: written whole or not at all, read with one line where they cannot be, and never another's overwritten."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vae_common import stopping
from vae_common.errors import InputError, one_line
from vae_common.stopping import BUSY

PART = ".part"
KIND = "kind"
"""The key of a JSON record that says what wrote it."""


def write_atomically(path: str | Path, data: bytes) -> None:
    """Writes beside `path`, syncs to the disk, then renames over it, with the permissions that the umask leaves.

    OSError names the path, also where the disk is full.
    """
    path = Path(path)
    temporary = path.parent / f".{path.name[:80]}.{secrets.token_hex(4)}{PART}"
    with BUSY, naming(path):
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise


def tell_system(path: Path, text: str) -> None:
    """Writes to a file of /proc or /sys, which asks the system for something and keeps nothing."""
    path.write_text(text, encoding="ascii")


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """An OSError of its block names this path: a write to a full disk names none."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def write_json(path: str | Path, values: Mapping[str, Any]) -> None:
    """Writes a JSON file atomically."""
    write_atomically(path, (json.dumps(values, indent=2) + "\n").encode())


def append_line(path: Path, line: str) -> None:
    """Adds a line to a text file."""
    with BUSY, naming(path), open(path, "a", encoding="utf-8") as file:
        file.write(line + "\n")


def read_json(path: Path, what: str) -> Any:
    """A JSON file's content; InputError says in one line why it is not `what`."""
    try:
        require_regular(path, what)
        return parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{what}: {path} does not exist") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{what}: {path} cannot be read ({reason(error)})") from error


def parse_json(text: str) -> Any:
    """JSON of any depth; ValueError where it is none."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def reason(error: BaseException) -> str:
    """Why something cannot be read, in a few words: an error may carry the whole file."""
    if isinstance(error, UnicodeDecodeError):
        return "it is no text"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return one_line(error or type(error).__name__, 120)


def require_regular(path: Path, what: str) -> None:
    """Raises InputError for what would be waited for or is no file; FileNotFoundError where nothing is."""
    kind = path.stat().st_mode
    if not stat.S_ISREG(kind):
        said = "a folder" if stat.S_ISDIR(kind) else "no regular file"
        raise InputError(f"{what}: {path} is {said}, expected a file")


def require_writable(path: Path, flag: str, kind: str, keys: Sequence[str]) -> None:
    """Raises InputError unless nothing is at `path` yet, or a record that the same kind of command wrote.

    Records of earlier versions do not name their kind; they are known by these keys.
    """
    require_folder(path, flag)
    if not os.path.lexists(path):
        return
    try:
        held = read_json(path, flag)
    except InputError:
        held = None
    ours = isinstance(held, dict) and (held.get(KIND) == kind if KIND in held else all(key in held for key in keys))
    if not ours:
        raise InputError(f"{flag}: {path} exists and is no {kind}; choose another name or delete it")


def require_folder(path: Path | None, flag: str) -> None:
    """Raises InputError where no file can come to `path`: before the work, not after it. None is no file."""
    if path is not None and not path.parent.is_dir():
        raise InputError(f"{flag}: received {path}, expected a file in a folder that exists")


def parts(folder: Path) -> set[Path]:
    """What writers that were killed left behind."""
    return set(folder.glob(f".*{PART}"))


def remove_parts(folder: Path) -> None:
    """Removes what writers that were killed left behind; nobody else may be writing."""
    for part in parts(folder):
        part.unlink()


def is_unused(folder: Path) -> bool:
    """Whether a folder is empty, but for what writers that were killed left behind."""
    return set(folder.iterdir()) == parts(folder)


@contextlib.contextmanager
def gone_if_unused(folder: Path) -> Iterator[None]:
    """Where its block ends in an error and nothing was written, the folder goes."""
    try:
        yield
    except BaseException:
        if is_unused(folder):
            remove_parts(folder)
            folder.rmdir()
        raise


@contextlib.contextmanager
def alone_in(folder: Path, others: str) -> Iterator[None]:
    """Keeps every other process that asks so out of a folder while its block runs; InputError says that of `others`."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise InputError(f"{folder} {others}; wait for it or end it") from None
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def in_turn(folder: Path) -> Iterator[None]:
    """Runs its block when no other process is in one for this folder, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def private_folder(folder: Path) -> Path:
    """The folder, made if need be, that nobody but this user can read or write.

    What compilers keep holds machine code and pickles, which run as whoever loads them. Raises OSError where it
    cannot be made so.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = os.lstat(folder)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise PermissionError(1, "it belongs to another user", str(folder))
    if stat.S_IMODE(found.st_mode) & 0o077:
        os.chmod(folder, 0o700)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(13, "it cannot be written to", str(folder))
    return folder


def program_cache() -> Path | None:
    """Where this user's compiled programs are kept for this machine; None where no such folder can be had.

    A program is compiled for a processor's instructions: another machine that shares the home has a folder of its own.
    """
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute()
        return private_folder(private_folder(base / "twin-vae") / processor())
    except (OSError, RuntimeError):  # a full disk, no home
        return None


def processor() -> str:
    """Names this machine's kind of processor: equal where the same instructions are there."""
    flags = Path("/proc/cpuinfo")
    lines = flags.read_text().splitlines() if flags.exists() else [repr(os.uname())]
    kinds = sorted({line for line in lines if line.startswith(("flags", "Features", "model name", "CPU part"))})
    return hashlib.sha256("\n".join(kinds or lines).encode()).hexdigest()[:16]


def temporary_programs() -> Path:
    """A new private folder for programs that are not kept; it goes when this process ends, also by a signal."""
    folder = Path(tempfile.mkdtemp(prefix="twin-vae-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    stopping.at_end(lambda: shutil.rmtree(folder, ignore_errors=True))
    return folder
