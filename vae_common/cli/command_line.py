"""What every script does around its work: typed flags in, one line for bad input, JSON as the last line."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import json
import logging
import os
import re
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NoReturn, Protocol, TextIO

import tyro

from vae_common import stopping, worlds
from vae_common.config import PRESETS
from vae_common.config.experiment import not_read
from vae_common.errors import InputError, one_line
from vae_common.runs.epoch_records import NonFiniteLoss


class Command(Protocol):
    """A command's module; `status(result)`, where it has one, is its exit status."""

    @property
    def Arguments(self) -> Any: ...
    @property
    def main(self) -> Callable[..., dict[str, Any]]: ...


def run_command(command: Command) -> NoReturn:
    """Parses the flags, runs the command, prints its result as one line of JSON, exits with its status.

    Exit status 2 and one line on standard error for bad input, 1 for a training that failed, 141 where nobody reads the
    output any more, 128 + its number for a signal (see stopping.py).
    """
    stopping.install()
    quieten()
    try:
        sys.exit(outcome(command, sys.argv[1:]))
    except BrokenPipeError:  # also of what the interpreter would flush at its end
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(141)


_BROKEN = r"peer|gloo|nccl|coordination|heartbeat|socket|unavailable|connection|barrier"
"""What either framework says where a process that it works with has gone."""


class _Program:
    """What this process was started as."""

    installed = False


def as_installed() -> None:
    """From here on commands say of themselves that they were called by the installed `twin-vae`."""
    _Program.installed = True


def called(name: str) -> list[str]:
    """How this command was called, without its flags: by the installed `twin-vae`, or as a script of a checkout."""
    return ["twin-vae", name] if _Program.installed else ["python", "-m", f"scripts.{name}"]


def quieten() -> None:
    """Keeps what libraries say of themselves off a command's standard error; what matters is raised, not logged.

    XLA's compiler, for one, writes two lines whenever a program that it kept is loaded on a processor with AVX-512: of
    a hint to itself, not of an instruction. Before JAX is imported.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    for name in ("jax._src.xla_bridge", "jax._src.compilation_cache", "jax._src.compiler"):
        logging.getLogger(name).setLevel(logging.ERROR)
    streams: tuple[TextIO, ...] = (sys.stdout, sys.stderr)
    for stream in streams:  # a terminal may know ASCII only
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def outcome(command: Command, flags: Sequence[str]) -> int:
    """Runs the command with these flags and returns its exit status; its result and errors are printed."""
    world = worlds.World()
    try:
        world = worlds.from_environment()
        if world.size > 1 and not getattr(command, "WORLDS", False):
            raise InputError(f"world: received {world.size} processes, expected one: only train shares its work")
        result = command.main(parse(command.Arguments, flags))
        if world.rank == 0:
            print(json.dumps(result), flush=True)
        status: Callable[[dict[str, Any]], int] = getattr(command, "status", lambda result: 0)
        return status(result)
    except BrokenPipeError:
        raise
    except (InputError, OSError, MemoryError, NonFiniteLoss, RuntimeError, KeyboardInterrupt) as error:
        said, failed = _of_the_world(error) or _told(error)
        with contextlib.suppress(OSError):  # nobody may be able to hear it
            print(f"error: {one_line(said)}", file=sys.stderr, flush=True)
        if world.size > 1:  # what the frameworks would do at their end waits for processes that are gone
            os._exit(failed)
        return failed


def _told(error: BaseException) -> tuple[str, int]:
    """What is said of an error that is a user's to mend, and the exit status; any other is raised again."""
    if isinstance(error, InputError):
        return str(error), 2
    if isinstance(error, OSError):
        mend = "check the path, its permissions and the space on the disk"
        return f"{error.filename or 'files'}: {error.strerror or error}; {mend}", 2
    if isinstance(error, NonFiniteLoss):
        return str(error), 1
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; what was saved can be resumed or deleted", 130
    full = r"out of memory|can't allocate memory|RESOURCE_EXHAUSTED"  # what either framework raises of its allocations
    if isinstance(error, MemoryError) or re.search(full, str(error), re.IGNORECASE):
        return f"memory: {one_line(str(error) or 'not enough', 200)}; expected a smaller network, batch or set", 2
    if "No space left on device" in str(error):  # a compiler's cache
        return f"a disk is full ({one_line(error, 200)}); make space, or use --no-program-cache", 2
    raise error


def _of_the_world(error: BaseException) -> tuple[str, int] | None:
    """What is said where a process that this one works with has gone."""
    if not isinstance(error, RuntimeError) or not re.search(_BROKEN, str(error), re.IGNORECASE):
        return None
    world = worlds.from_environment()
    if world.size == 1:
        return None
    how = stopping.how_to_go_on()
    reason = re.sub(r"^\[[^\]]*\] ?", "", str(error)).partition(". ")[0]
    said = f"world: {world.name} lost another ({one_line(reason, 100)})"
    return f"{said}; start all of them again{f', with: {how}' if how else ''}", 1


def parse(arguments: Any, flags: Sequence[str]) -> Any:
    """The script's arguments; raises InputError with tyro's explanation in one line.

    Where they have an `experiment`, its --preset decides what the flags that are not given stand for.
    """
    default: Any = arguments()
    if hasattr(default, "experiment"):
        name = given(flags).get("--preset") or default.experiment.preset
        preset = PRESETS.get(name, PRESETS["default"])  # tyro refuses an unknown name itself
        parts = [f.name for f in dataclasses.fields(default.experiment) if hasattr(preset, f.name)]
        experiment = dataclasses.replace(default.experiment, **{part: getattr(preset, part) for part in parts})
        default = dataclasses.replace(default, experiment=experiment)
        if {"-h", "--help"} & set(flags):
            arguments, default = _of_its_own(arguments, default, flags)
    explanation = io.StringIO()
    try:
        with contextlib.redirect_stderr(explanation):
            return tyro.cli(arguments, args=list(flags), default=default)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise InputError(_one_line(explanation.getvalue())) from None


def _of_its_own(arguments: Any, default: Any, flags: Sequence[str]) -> tuple[Any, Any]:
    """The arguments and their defaults without the fields that the models, objective and likelihood asked for do not
    have: what --help shows."""
    loss = default.experiment.loss
    chosen = {
        "objective": given(flags).get("--objective") or loss.objective,
        "reconstruction": given(flags).get("--reconstruction") or loss.reconstruction,
    }
    models = words_after("--models", flags) or words_after("--model", flags)
    models = models or list(getattr(default, "models", [getattr(default, "model", "vae")]))
    hidden: set[tuple[str, str]] = set.intersection(*(set(not_read(model, **chosen)) for model in models))
    parts = {}
    for part in ("network", "loss"):
        values = getattr(default.experiment, part)
        own: Any = type(values)
        hints = typing.get_type_hints(own, include_extras=True)
        fields = [
            (f.name, Annotated[hints[f.name], tyro.conf.Suppress], dataclasses.field(default=f.default))
            for f in dataclasses.fields(own)
            if (part, f.name) in hidden
        ]
        narrow = dataclasses.make_dataclass(own.__name__, fields, bases=(own,), frozen=True)
        parts[part] = narrow(**{f.name: getattr(values, f.name) for f in dataclasses.fields(own)})
    experiment = _with_types(default.experiment, parts)
    shown = _with_types(default, {"experiment": experiment})
    return type(shown), shown


def _with_types(values: Any, parts: Mapping[str, Any]) -> Any:
    """A dataclass's values with other parts, which are of their own types."""
    flat = tyro.conf.arg(name="")
    fields = [(name, Annotated[type(part), flat], dataclasses.field(default=part)) for name, part in parts.items()]
    narrow = dataclasses.make_dataclass(type(values).__name__, fields, bases=(type(values),), frozen=True)
    return narrow(**{f.name: getattr(values, f.name) for f in dataclasses.fields(values)} | dict(parts))


def words_after(flag: str, flags: Sequence[str]) -> list[str]:
    """The words that a flag is given, up to the next one; nothing where it is not there."""
    if flag not in flags:
        return []
    rest = list(flags[list(flags).index(flag) + 1 :])
    return list(itertools.takewhile(lambda word: not word.startswith("-"), rest))


def given(flags: Sequence[str]) -> dict[str, str | None]:
    """What each flag was given on the command line, by its name with hyphens; of a repeated one the last counts."""
    found: dict[str, str | None] = {}
    for i, item in enumerate(flags):
        name, equals, value = item.partition("=")
        if name.startswith("--"):
            found[name.replace("_", "-")] = value if equals else next(iter(flags[i + 1 : i + 2]), None)
    return found


def require_only(flag: str, allowed: Sequence[str], flags: Sequence[str]) -> None:
    """Raises InputError where another flag is given beside this one than those that are allowed."""
    other = [name for name in given(flags) if name != flag and name not in allowed]
    if other:
        received = one_line(", ".join(other), 200)
        expected = f"at most {', '.join(allowed)}" if allowed else "nothing beside it"
        raise InputError(f"{flag.removeprefix('--')}: received {received}, expected {expected}")


def _one_line(box: str) -> str:
    """tyro's framed explanation without its frame, which has no sides where the output is not UTF-8."""
    lines = box.splitlines()
    inside = [line for line in lines if line.startswith("│")] or lines[1:]
    words = (line.strip("│ ") for line in inside if "────" not in line and "----" not in line)
    return re.sub(r" (Argument helptext|For full helptext).*", "", " ".join(" ".join(words).split()))
