"""Measures what residual models take in memory to train: rematerialised, and shared by two processes.

python -m scripts.step_memory --output results/step-memory.json

Each measurement is a process of its own (or two), on a CPU, without a cache of programs. `held` is what it keeps of
weights and moments between steps, `most` the most that it holds in a step, each beyond what it held before the model
was made; in bytes of its resident set, of the largest process. `seconds` is the median of its steps: the two processes
share the machine's cores.
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vae_common import files, worlds
from vae_common.backend import load_halves
from vae_common.cli.command_line import run_command
from vae_common.config import Config, LossConfig, NetworkConfig, TrainingConfig
from vae_common.errors import require
from vae_common.machine import KEPT

CASES: dict[str, tuple[dict[str, Any], int, int]] = {
    "1.0 M parameters, 32x32, batch 32": ({"block_channels": (40, 80), "activation": "silu"}, 32, 32),
    "83.7 M parameters, 64x64, batch 4": (
        {"block_channels": (128, 256, 512, 512), "block_layers": 2, "norm_groups": 32, "activation": "silu"}, 64, 4,
    ),
}  # fmt: skip
"""Fields of the network, pixels to a side, images a step."""
WAYS: dict[str, tuple[int, dict[str, Any]]] = {
    "one process": (1, {}),
    "one process, blocks rematerialised": (1, {"rematerialize": "blocks"}),
    "two processes, batch shared": (2, {}),
    "two processes, parameters shared": (2, {"sharding": "data+parameters"}),
}
"""Processes, and what is configured."""
STEPS = 3
GIVEN_BACK = dict.fromkeys(KEPT, str(128 << 10))
"""What arrays give back goes to the system at once: it is not what a step takes."""


@dataclass(frozen=True)
class Arguments:
    """What residual models take in memory to train: rematerialised, and shared by two processes."""

    cases: tuple[str, ...] = tuple(CASES)
    ways: tuple[str, ...] = tuple(WAYS)
    output: Path | None = None
    """A JSON file for the record."""
    one: tuple[str, str, str] | None = None
    """One measurement in this process: the case, the half and the way."""


WORLDS = True


def measure(case: str, framework: str, way: str) -> dict[str, float]:
    """Bytes and seconds of one process."""
    import numpy as np

    fields, side, batch = CASES[case]
    network: dict[str, Any] = dict(fields)
    training: dict[str, Any] = {"batch_size": batch}
    for name, value in WAYS[way][1].items():
        (network if name == "rematerialize" else training)[name] = value
    half = load_halves(framework, program_cache=False)[framework]
    half.distributed.start(worlds.from_environment())
    config = Config(
        "kl_autoencoder",
        image_shape=(side, side, 3),
        network=NetworkConfig(**network),
        loss=LossConfig(reconstruction="linear_gaussian", sigma=0.1),
        training=TrainingConfig(**training),
    )
    half.to_numpy(half.to_device(np.zeros(1, np.float32), half.device_for(config)))
    base = _status("VmRSS")
    state = half.create_state(config)
    gc.collect()
    held = _status("VmRSS") - base
    rng = np.random.default_rng(0)
    images = rng.random((batch, *config.image_shape)).astype(np.float32)
    noise = rng.standard_normal((batch, config.noise_dim)).astype(np.float32)
    took = []
    for step in range(1 + STEPS):
        if step == 1:  # compiled; from here on the peak is a step's
            files.tell_system(Path("/proc/self/clear_refs"), "5")
        start = time.perf_counter()
        state, terms = half.train_step(state, images, noise)
        half.to_numpy(terms.total)
        took.append(time.perf_counter() - start)
    found = {"held": held, "most": _status("VmHWM") - base, "seconds": statistics.median(took[1:])}
    half.distributed.stop()
    return found


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1]) * 1024


def of_processes(case: str, framework: str, way: str) -> dict[str, float]:
    """The largest numbers of the processes that a way takes."""
    count, port = WAYS[way][0], worlds.free_port()
    command = [sys.executable, "-m", "scripts.step_memory", "--one", case, framework, way]
    started = []
    for rank in range(count):
        environment = os.environ | GIVEN_BACK | worlds.of_this_machine(rank, count, port)
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment))
    outputs = [process.communicate()[0] for process in started]
    for process in started:
        require(process.returncode == 0, "measurement", process.returncode, "0; see above what it says")
    found = [json.loads(line) for text in outputs for line in text.splitlines() if line.startswith('{"held"')]
    return {name: max(of[name] for of in found) for name in found[0]}


def main(arguments: Arguments) -> dict[str, Any]:
    files.require_folder(arguments.output, "output")
    if arguments.one is not None:
        found = measure(*arguments.one)
        print(json.dumps(found), flush=True)  # of each process
        return {}
    cases: dict[str, Any] = {}
    for case in arguments.cases:
        for framework in ("jax", "torch"):
            for way in arguments.ways:
                own = of_processes(case, framework, way)
                cases.setdefault(case, {}).setdefault(framework, {})[way] = own
                said = f"{own['held'] / 1e6:.0f} MB held, {own['most'] / 1e6:.0f} MB at most, {own['seconds']:.2f} s"
                print(f"{case}, {framework}, {way}: {said}", file=sys.stderr, flush=True)
    halves = load_halves("jax", "torch")
    record = {
        "command": ["python", "-m", "scripts.step_memory", *sys.argv[1:]],
        "framework": "; ".join(half.environment()["framework"] for half in halves.values()),
        "machine": f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f} after",
        "cases": cases,
    }
    if arguments.output is not None:
        files.write_json(arguments.output, record)
    return cases


if __name__ == "__main__":
    run_command(sys.modules[__name__])
