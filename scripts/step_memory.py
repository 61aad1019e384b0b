"""Measures what a training step of residual models takes in memory, and what rematerialisation gives and costs.

python -m scripts.step_memory --output results/step-memory.json

Each case is a process of its own, on a CPU: the most that it held (its resident set) after a step, less what it held
before the first one with parameters and moments in place; and the median seconds of a step.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vae_common import files
from vae_common.backend import load_halves
from vae_common.cli.command_line import run_command
from vae_common.config import Config, LossConfig, NetworkConfig, TrainingConfig

CASES: dict[str, tuple[dict[str, Any], int, int]] = {
    "1.0 M parameters, 32x32, batch 32": ({"block_channels": (32, 64, 64), "block_layers": 2}, 32, 32),
    "83.7 M parameters, 64x64, batch 2": (
        {"block_channels": (128, 256, 512, 512), "block_layers": 2, "norm_groups": 32}, 64, 2,
    ),
}  # fmt: skip
"""Fields of the network, pixels to a side, images a step."""
STEPS = 3


@dataclass(frozen=True)
class Arguments:
    """What a step of residual models takes in memory, with rematerialisation and without."""

    cases: tuple[str, ...] = tuple(CASES)
    output: Path | None = None
    """A JSON file for the record."""
    one: tuple[str, str, str] | None = None
    """One case in this process: its name, the half, and what is rematerialised."""


def measure(case: str, framework: str, rematerialize: str) -> dict[str, float]:
    """Bytes and seconds of one case, in this process."""
    import numpy as np

    fields, side, batch = CASES[case]
    half = load_halves(framework)[framework]
    config = Config(
        "kl_autoencoder",
        image_shape=(side, side, 3),
        network=NetworkConfig(**fields | {"rematerialize": rematerialize}),
        loss=LossConfig(reconstruction="linear_gaussian", sigma=0.1),
        training=TrainingConfig(batch_size=batch),
    )
    rng = np.random.default_rng(0)
    images = rng.random((batch, *config.image_shape)).astype(np.float32)
    noise = rng.standard_normal((batch, config.noise_dim)).astype(np.float32)
    state = half.create_state(config)
    half.synchronize(half.state_to_arrays(state) and state.model)
    before = _resident()
    took = []
    for _ in range(1 + STEPS):
        start = time.perf_counter()
        state, terms = half.train_step(state, images, noise)
        half.to_numpy(terms.total)
        took.append(time.perf_counter() - start)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"bytes": most - before, "seconds": statistics.median(took[1:])}


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main(arguments: Arguments) -> dict[str, Any]:
    if arguments.one is not None:
        return dict(measure(*arguments.one))
    found: dict[str, Any] = {}
    for case in arguments.cases:
        for framework in ("jax", "torch"):
            for rematerialize in ("none", "blocks"):
                command = [sys.executable, "-m", "scripts.step_memory", "--one", case, framework, rematerialize]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                own = json.loads(done.stdout.splitlines()[-1])
                found.setdefault(case, {}).setdefault(framework, {})[rematerialize] = own
                said = f"{case}, {framework}, {rematerialize}: {own['bytes'] / 1e6:.0f} MB, {own['seconds']:.2f} s"
                print(said, file=sys.stderr, flush=True)
    halves = load_halves("jax", "torch")
    record = {
        "command": ["python", "-m", "scripts.step_memory", *sys.argv[1:]],
        "framework": "; ".join(half.environment()["framework"] for half in halves.values()),
        "machine": f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f} after",
        "cases": found,
    }
    if arguments.output is not None:
        files.write_json(arguments.output, record)
    return found


if __name__ == "__main__":
    run_command(sys.modules[__name__])
