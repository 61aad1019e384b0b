"""Where a step's time goes in each half, by the same names: measured, corrected for the profiler, drawn, told."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from matplotlib.figure import Figure

from vae_common import files, machine
from vae_common.backend import FRAMEWORKS, Half, Halves, load_profiling, name_of
from vae_common.benchmark.verdict import aligned
from vae_common.config import Config
from vae_common.config.parts import Execution
from vae_common.figures import plotting
from vae_common.profiles import BACKWARD, PARTS, Operation, Profile

KIND = "profile"
ROUNDS = 10
"""Epochs after the profiled one whose steps are timed without a profiler."""
SHOWN = 40
"""Operations that a record lists, the longest first."""
COLOURS = {
    "gather": "#999999", "encoder": "#56B4E9", "latents": "#F0E442", "decoder": "#0072B2", "loss": "#D55E00",
    "adam": "#009E73", "host": "#DDDDDD",
}  # fmt: skip


@dataclass(frozen=True)
class Parts:
    """What a half's step consists of."""

    seconds: float
    """A step without the profiler, the median of several epochs."""
    profiled_seconds: float
    """A step under it."""
    parts: Mapping[str, float]
    """By name, one of PARTS; they add up to the step."""
    operations: Sequence[Operation]
    """The longest, the profiler's own time taken off."""
    trace: str
    """The framework's own trace, beside the record."""

    @property
    def attributed(self) -> float:
        """The share of the step that operations account for; the rest is the host's."""
        return 1 - self.parts["host"] / self.seconds


def measure(half: Half, config: Config, steps: int, folder: Path) -> Parts:
    """A half's parts of a step; its trace goes into the folder."""
    images = np.random.default_rng(0).integers(
        0, 256, (steps * config.training.batch_size, *config.image_shape), np.uint8
    )
    placed = half.place_images(images, config)
    profile = load_profiling(half).profile(config, placed, folder / name_of(half))
    run = _epochs(
        half, replace(config, training=replace(config.training, execution=cast("Execution", profile.execution))), placed
    )
    run()
    seconds = statistics.median([run() for _ in range(ROUNDS)]) / steps
    return corrected(profile, seconds, f"{name_of(half)}/{profile.trace}")


def corrected(profile: Profile, seconds: float, trace: str) -> Parts:
    """A profile whose parts add up to a step without the profiler, which takes these seconds.

    What the profiler added is taken off the operations, the same of each call, and what no operation accounts for is
    the host's. Where a step took longer without the profiler, by what else the machine did, so did all of its parts.
    """
    calls = sum(operation.calls for operation in profile.operations)
    added = 0.0 if profile.on_device else profile.seconds - seconds
    each = max(0.0, added) / calls if calls else 0.0
    slower = seconds / profile.seconds if added < 0 else 1.0
    own = [
        Operation(of.name, of.part, max(0.0, of.seconds * slower - each * of.calls), of.calls)
        for of in profile.operations
    ]
    total = sum(of.seconds for of in own)
    if total > seconds:  # several at once, or timed more coarsely than they are
        own = [Operation(of.name, of.part, of.seconds * seconds / total, of.calls) for of in own]
    parts = dict.fromkeys(PARTS, 0.0)
    for of in own:
        parts[of.part] += of.seconds
    parts["host"] += max(0.0, seconds - sum(of.seconds for of in own))
    longest = sorted(own, key=lambda of: -of.seconds)[:SHOWN]
    return Parts(seconds, profile.seconds, parts, longest, trace)


def _epochs(half: Half, config: Config, placed: Any) -> Any:
    """Trains an epoch of its own state at each call; the seconds that it took."""
    state, draws = half.create_state(config), half.epoch_draws(config, 0, len(placed))
    program = half.compile_epoch(state, placed, draws)

    def run() -> float:
        nonlocal state
        start = time.perf_counter()
        state, terms = program(state, placed, draws)
        half.synchronize(terms)
        return time.perf_counter() - start

    return run


def write(halves: Halves, config: Config, steps: int, folder: Path, command: Sequence[str]) -> dict[str, Any]:
    """Profiles every half into a folder: profile.json, profile.png, the frameworks' traces; returns the record."""
    where = machine.facts() | {"cores": str(machine.cores())}
    found = {name: measure(half, config, steps, folder) for name, half in halves.items()}
    record = {
        files.KIND: KIND,
        "command": list(command),
        "config": config.to_json(),
        "steps": steps,
        "machine": where,
        "environment": {name: half.environment(config.training.device) for name, half in halves.items()},
        "found": sentence(found),
        "table": table(found),
        "halves": {name: asdict(parts) | {"attributed": parts.attributed} for name, parts in found.items()},
    }
    files.write_atomically(folder / "profile.json", (json.dumps(record, indent=1) + "\n").encode())
    plotting.save(figure(found), folder / "profile.png")
    return record


def sentence(found: Mapping[str, Parts]) -> str:
    """What a step takes in each half, and the part that explains most of the difference between two."""
    each = ", ".join(f"{FRAMEWORKS[name]} {1e3 * parts.seconds:.2f} ms" for name, parts in found.items())
    if len(found) < 2:
        ((_, parts),) = found.items()
        longest = max(parts.parts, key=lambda part: parts.parts[part])
        return f"A step takes {each}; its longest part is {longest} ({parts.parts[longest] / parts.seconds:.0%})."
    one, other = found.values()
    apart = {part: other.parts[part] - one.parts[part] for part in PARTS}
    most = max(apart, key=lambda part: abs(apart[part]))
    total = other.seconds - one.seconds
    slower = FRAMEWORKS[list(found)[1 if apart[most] > 0 else 0]]
    told = f"{most} takes {1e3 * abs(apart[most]):.2f} ms more in {slower}"
    return f"A step takes {each}: a difference of {1e3 * abs(total):.2f} ms. Most of it: {told}."


def table(found: Mapping[str, Parts]) -> str:
    """Microseconds of each part, a column a half."""
    rows = [("microseconds a step", *(FRAMEWORKS[name] for name in found))]
    rows += [(part, *(f"{1e6 * parts.parts[part]:,.0f}" for parts in found.values())) for part in PARTS]
    rows.append(("whole step", *(f"{1e6 * parts.seconds:,.0f}" for parts in found.values())))
    return aligned(rows)


def figure(found: Mapping[str, Parts]) -> Figure:
    """A bar a half, from the gathering of the batch to Adam; backward passes are hatched."""
    drawn = Figure(figsize=(9, 1.6 + 0.8 * len(found)), layout="constrained")
    axes = drawn.subplots()
    for row, parts in enumerate(found.values()):
        left = 0.0
        for part in PARTS:
            forward = part.removesuffix(BACKWARD)
            width = 1e3 * parts.parts[part]
            hatch = "///" if part.endswith(BACKWARD) else ""
            label = part if row == 0 else "_"
            axes.barh(
                row, width, left=left, height=0.55, color=COLOURS[forward], hatch=hatch, edgecolor="white", label=label
            )
            left += width
    axes.set_yticks(range(len(found)), [FRAMEWORKS[name] for name in found])
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.set(xlabel="milliseconds", title="A training step, part by part")
    drawn.legend(loc="outside lower center", ncols=6, frameon=False, fontsize="small")
    return drawn
