"""The operations of a training step, and the part of it that each belongs to. Twin: torch_vae/profiling.py."""

from __future__ import annotations

import re
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from vae_common.config import Config
from vae_common.errors import InputError
from vae_common.profiles import Operation, Profile, part_of

from .batches import epoch_draws
from .compiling import compiler_options
from .device import Array, device_for, execution_for, platform_of, precision, synchronize
from .execution import jitted_epoch
from .state import create_state

WARM_UP = 2
"""Epochs before the one that is profiled."""
ENDED = "end: "
"""Before an operation's name, where XLA for CPUs says that it has ended."""


def profile(config: Config, images: Array, folder: Path) -> Profile:
    """The operations of an epoch's steps on placed images (N, height, width, channels), as XLA's thunks or kernels.

    An operation belongs to the part that the compiler says it comes from; of what it fused that is the last's.
    On a GPU its kernels are launched one by one: of those in a graph the trace does not say which they are.
    InputError for `eager` execution, which is no program.
    """
    if execution_for(config) == "eager":
        raise InputError("execution: received eager, which is no program; JAX is profiled with auto")
    state, draws = create_state(config), epoch_draws(config, 0, len(images))
    on_device = platform_of(device_for(config)) != "cpu"
    options = compiler_options(config) | ({"xla_gpu_enable_command_buffer": ""} if on_device else {})
    with precision(config.training.precision):
        program = jitted_epoch.lower(state, images, draws).compile(compiler_options=options)
        for _ in range(WARM_UP):
            state, terms = program(state, images, draws)
        synchronize(terms)
    with precision(config.training.precision), jax.profiler.trace(str(folder), create_perfetto_trace=True):
        start = time.perf_counter()
        state, terms = program(state, images, draws)
        synchronize(terms)
        seconds = time.perf_counter() - start
    steps, parts = len(draws.order), _parts_of(str(program.as_text()))
    spent: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
    calls, ends = _events(folder, parts, on_device)
    for call in calls:
        spent[call.name][0] += call.end - call.begin
        spent[call.name][1] += 1
    for name, nanoseconds in _after_calls(calls, ends):
        spent[name][0] += nanoseconds
    operations = [Operation(n, parts[n], took / 1e9 / steps, calls / steps) for n, (took, calls) in spent.items()]
    trace = max(folder.rglob("perfetto_trace.json.gz"), key=lambda path: path.stat().st_mtime)
    return Profile(operations, seconds / steps, str(trace.relative_to(folder)), on_device)


def _parts_of(text: str) -> dict[str, str]:
    """Part of each instruction of a compiled program's text, by its name; loops and calls are left out."""
    tables = {name: _table(text, name) for name in ("FunctionNames", "FileLocations", "StackFrames")}
    locations = {key: _number(value, "function_name_id") for key, value in tables["FileLocations"].items()}
    frames = {
        key: (_number(value, "file_location_id"), _number(value, "parent_frame_id"))
        for key, value in tables["StackFrames"].items()
    }
    shift = int(any(key == parent for key, (_, parent) in frames.items()))  # jaxlib 0.10 counts parents from one
    found = {}
    for line in text.splitlines():
        named = re.match(r"\s+(?:ROOT )?%?([\w.\-]+) = ", line)
        about = re.search(r'metadata=\{op_name="([^"]*)"(?:[^}]*stack_frame_id=(\d+))?', line)
        if named is None or re.search(r" (while|call|conditional|parameter|get-tuple-element|tuple)\(", line):
            continue
        chain: list[str] = []
        frame = int(about.group(2) or 0) if about else 0
        while frame in frames and len(chain) < len(frames):
            location, parent = frames[frame]
            chain.append(tables["FunctionNames"].get(locations.get(location, 0), "").strip('"'))
            frame = parent - shift
        found[named.group(1)] = part_of(chain, bool(about and "transpose(" in about.group(1)))
    return found


def _table(text: str, name: str) -> dict[int, str]:
    """One of the tables at a program's head, by number."""
    begin = re.search(rf"^{name}$", text, re.M)
    rows = text[begin.end() :].lstrip("\n").splitlines() if begin else []
    found = {}
    for row in rows:
        numbered = re.match(r"(\d+) (.*)", row)
        if numbered is None:
            break
        found[int(numbered.group(1))] = numbered.group(2)
    return found


def _number(row: str, field: str) -> int:
    found = re.search(rf"{field}=(\d+)", row)
    return int(found.group(1)) if found else 0


class _Call(NamedTuple):
    """Of an operation that the profiler saw; in nanoseconds."""

    begin: int
    end: int
    name: str


def _events(folder: Path, parts: Mapping[str, str], on_device: bool) -> tuple[list[_Call], list[tuple[int, str]]]:
    """Every call of an operation that the profiler saw, and when which was said to have ended."""
    newest = max(folder.rglob("*.xplane.pb"), key=lambda path: path.stat().st_mtime)
    calls, ends = [], []
    for line in _lines(jax.profiler.ProfileData.from_file(str(newest)).planes, on_device):
        for event in line.events:
            begin = int(event.start_ns)
            if event.name.startswith(ENDED):
                ends.append((begin, event.name.removeprefix(ENDED)))
                continue
            named = event.name if event.name in parts else dict(event.stats).get("hlo_op")
            if named in parts:
                calls.append(_Call(begin, begin + int(event.duration_ns), str(named)))
    return calls, ends


def _after_calls(calls: Iterable[_Call], ends: Iterable[tuple[int, str]]) -> list[tuple[str, int]]:
    """Name and nanoseconds of operations that go on in threads of a pool when their call has come back.

    A convolution on a CPU is one. Its end is said late, once what waited for it has run. So of the time that no call
    takes, up to there, what was called last has it.
    """
    later: defaultdict[str, deque[int]] = defaultdict(deque)
    for moment, name in sorted(ends):
        later[name].append(moment)
    found, covered = [], 0
    running: list[tuple[int, str]] = []
    for call in sorted(calls):
        running = [(until, name) for until, name in running if until > covered]
        if running and call.begin > covered:
            until, name = running[-1]
            found.append((name, min(call.begin, until) - covered))
        own = later[call.name]
        while own and own[0] < call.begin:
            own.popleft()
        running.append((own.popleft() if own else call.end, call.name))
        covered = max(covered, call.end)
    return found


def _lines(planes: Iterable[Any], on_device: bool) -> list[Any]:
    """The lines of a trace that have each operation once.

    On an accelerator those of its own streams, or of its operations where it has no streams: the host's lines have the
    launches under the same names.
    """
    if not on_device:
        return [line for plane in planes for line in plane.lines if line.name not in ("XLA Modules", "Steps", "python")]
    found = [line for plane in planes if plane.name.startswith("/device:") for line in plane.lines]
    streams = [line for line in found if line.name.startswith("Stream")]
    return streams or [line for line in found if line.name == "XLA Ops"]
