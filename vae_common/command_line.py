"""What every script does around its work: typed flags in, one line for bad input, JSON as the last line."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import tyro

from vae_common.configs import PRESETS, InputError
from vae_common.records import NonFiniteLoss

_T = TypeVar("_T")


def run(
    arguments: Callable[..., _T],
    main: Callable[[_T], dict[str, Any]],
    status: Callable[[dict[str, Any]], int] = lambda result: 0,
) -> None:
    """Parses the flags, runs the script, prints its result as one line of JSON, exits with its status.

    Exit status 2 and one line on standard error for bad input, 1 for a training that failed.
    """
    try:
        result = main(parse(arguments, sys.argv[1:]))
        print(json.dumps(result))
        sys.exit(status(result))
    except InputError as error:
        _fail(str(error), 2)
    except OSError as error:
        mend = "check the path, its permissions and the space on the disk"
        _fail(f"{error.filename or 'files'}: {error.strerror or error}; {mend}", 2)
    except MemoryError as error:
        _fail(f"memory: {error or 'not enough'}; expected a smaller network, batch or set", 2)
    except NonFiniteLoss as error:
        _fail(str(error), 1)
    except KeyboardInterrupt:
        _fail("interrupted; what was saved can be resumed or deleted", 130)


def parse(arguments: Callable[..., _T], flags: Sequence[str]) -> _T:
    """The script's arguments; raises InputError with tyro's explanation in one line.

    Where they have an `experiment`, its --preset decides what the flags that are not given stand for.
    """
    default: Any = arguments()
    if hasattr(default, "experiment"):
        name = value_of("--preset", flags) or default.experiment.preset
        preset = PRESETS.get(name, PRESETS["default"])  # tyro refuses an unknown name itself
        parts = [f.name for f in dataclasses.fields(default.experiment) if hasattr(preset, f.name)]
        experiment = dataclasses.replace(default.experiment, **{part: getattr(preset, part) for part in parts})
        default = dataclasses.replace(default, experiment=experiment)
    explanation = io.StringIO()
    try:
        with contextlib.redirect_stderr(explanation):
            return tyro.cli(arguments, args=list(flags), default=default)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise InputError(_one_line(explanation.getvalue())) from None


def value_of(flag: str, flags: Sequence[str]) -> str | None:
    """What a flag was given on the command line, or None where it was not."""
    for i, item in enumerate(flags):
        name, equals, value = item.partition("=")
        if name.replace("_", "-") == flag:
            return value if equals else next(iter(flags[i + 1 : i + 2]), None)
    return None


def _one_line(box: str) -> str:
    """tyro's framed explanation without its frame."""
    words = (line.strip("│ ") for line in box.splitlines() if line.startswith("│") and "────" not in line)
    return re.sub(r" (Argument helptext|For full helptext).*", "", " ".join(" ".join(words).split()))


def _fail(message: str, status: int) -> None:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(status)
