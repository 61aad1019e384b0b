"""Measures what several processes cost on a CPU, and says what the compiler's counts predict for many accelerators.

python -m scripts.scaling --output results/scaling.json

Worlds of some sizes train the same network on the same global batch. `seconds` is of a step in the median epoch;
`collectives` is what a step says to the other processes: from XLA's program in JAX, from PyTorch's profiler in PyTorch.
PyTorch's processes have a thread each, XLA's as many as there are cores. They share this machine's cores, so these are
costs and no speedup.

The prediction is arithmetic on counts, and nothing was run: of the step that XLA compiles for 2x2 TPU v5e chips
(results/tpu_compile.json, 2,048 images a chip, float32, the batch shared) each chip's roofline, and its all-reduce at
the links' published bandwidths, one after the other.
"""

from __future__ import annotations

import json
import math
import os
import re
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vae_common import files, worlds
from vae_common.backend import Framework, Half, load_halves
from vae_common.cli.command_line import run_command
from vae_common.config import Config, NetworkConfig, TrainingConfig
from vae_common.errors import require

ROOT = Path(__file__).resolve().parent.parent
STEPS, EPOCHS = 40, 5
"""Of each measurement; the first epoch is not counted."""
# Google's page of TPU v5e: a chip's links (half of 400 GB/s both ways), a pod's chips, its network (6.4 Tbit/s).
LINK, POD, NETWORK = 200e9, 256, 800e9
HOP = 1e-6
"""Seconds from chip to chip: an assumption, of the order of what is reported for such links."""
CHIPS = (4, 8, 16, 32, 64, 128, 256, 512, 1024)


@dataclass(frozen=True)
class Arguments:
    """What several processes cost, and what many accelerators would take."""

    sizes: tuple[int, ...] = (1, 2, 4)
    """Processes of each world."""
    frameworks: tuple[Framework, ...] = ("jax", "torch")
    shardings: tuple[Literal["data", "data+parameters"], ...] = ("data", "data+parameters")
    batch_size: int = 512
    hidden: int = 512
    counts: Path = ROOT / "results" / "tpu_compile.json"
    """The compiler's counts for the prediction."""
    output: Path | None = None
    """A JSON file for the record."""
    one: tuple[str, str] | None = None
    """One process's measurement: the half and what is shared."""


WORLDS = True


def measure(half: Half, arguments: Arguments, sharding: Any) -> dict[str, Any]:
    """Seconds and collectives of a step, in this process of a world."""
    import numpy as np

    config = Config(
        network=NetworkConfig(hidden=(arguments.hidden,), latent_dim=20),
        training=TrainingConfig(batch_size=arguments.batch_size, sharding=sharding),
    )
    images = np.random.default_rng(0).integers(0, 256, (STEPS * arguments.batch_size, *config.image_shape), np.uint8)
    state, placed, took = half.create_state(config), half.place_images(images, config), []
    program = half.compile_epoch(state, placed, half.epoch_draws(config, 0, len(images)))
    for epoch in range(EPOCHS):
        draws = half.epoch_draws(config, epoch, len(images))
        half.synchronize((placed, draws))
        start = time.perf_counter()
        state, terms = program(state, placed, draws)
        half.to_numpy(terms.total)
        took.append((time.perf_counter() - start) / STEPS)
    found = _of_program(program) if hasattr(program, "compiled") else _of_profile(half, state, placed, draws)
    parameters = sum(math.prod(shape) for shape in half.model_shapes(config).values())
    return {"seconds": statistics.median(took[1:]), "collectives": found, "parameters": parameters}


def _of_program(program: Any) -> dict[str, dict[str, int]]:
    """XLA's: the epoch's loop has a step's once."""
    from scripts.tpu_programs import collectives

    return collectives(program.compiled.as_text())


def _of_profile(half: Half, state: Any, placed: Any, draws: Any) -> dict[str, dict[str, int]]:
    """PyTorch's, of an epoch, over its steps. All numbers are float32."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiled:
        half.train_epoch(state, placed, draws)
    found: dict[str, dict[str, int]] = defaultdict(lambda: {"operations": 0, "bytes": 0})
    for event in profiled.events():
        name = re.fullmatch(r"gloo:(\w+)", event.name)
        if name:
            shapes = [shape for shape in event.input_shapes if shape]
            found[name[1]]["operations"] += 1
            found[name[1]]["bytes"] += 4 * sum(math.prod(shape) for shape in shapes)
    return {name: {what: round(number / STEPS) for what, number in of.items()} for name, of in found.items()}


def of_world(framework: str, sharding: str, size: int, arguments: Arguments) -> dict[str, Any]:
    """The slowest process's numbers of a world of that size."""
    port, flags = worlds.free_port(), ["--batch-size", str(arguments.batch_size), "--hidden", str(arguments.hidden)]
    command = [sys.executable, "-m", "scripts.scaling", "--one", framework, sharding, *flags]
    started = []
    for rank in range(size):
        environment = os.environ | worlds.of_this_machine(rank, size, port)
        environment |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment))
    outputs = [process.communicate()[0] for process in started]
    for process in started:
        require(process.returncode == 0, "measurement", process.returncode, "0; see above what it says")
    found = [json.loads(line) for text in outputs for line in text.splitlines() if line.startswith('{"seconds"')]
    slowest: dict[str, Any] = max(found, key=lambda of: of["seconds"])
    return slowest


def predicted(counts: dict[str, Any]) -> list[dict[str, float]]:
    """Seconds of a step on some numbers of chips, each with the compiled step's images, and the share that computes.

    An all-reduce sends twice what it reduces, but for a chip's own part; within a pod over the links of a torus, and
    between pods each pod's sum over its network.
    """
    wanted = {"topology": "v5e:2x2", "batch_size": 8192, "precision": "float32", "sharding": "data"}
    own = next(of for of in counts["programs"] if all(of[name] == value for name, value in wanted.items()))
    computing, size = own["roofline"]["microseconds_a_step"] / 1e6, own["collectives_of_a_step"]["all-reduce"]["bytes"]
    rows = []
    for chips in CHIPS:
        inside, pods = min(chips, POD), math.ceil(chips / POD)
        speaking = 2 * (inside - 1) / inside * size / LINK + 2 * HOP * math.sqrt(inside)
        speaking += 2 * (pods - 1) / pods * size / NETWORK
        rows.append({"chips": chips, "seconds": computing + speaking, "share": computing / (computing + speaking)})
    return rows


def main(arguments: Arguments) -> dict[str, Any]:
    files.require_folder(arguments.output, "output")
    if arguments.one is not None:
        framework, sharding = arguments.one
        half = load_halves(framework, program_cache=False)[framework]
        half.distributed.start(worlds.from_environment())
        found = measure(half, arguments, sharding)
        half.distributed.stop()
        print(json.dumps(found), flush=True)
        return {}
    measured: dict[str, Any] = {}
    for framework in arguments.frameworks:
        for sharding in arguments.shardings:
            for size in arguments.sizes:
                if size == 1 and sharding != arguments.shardings[0]:
                    continue
                own = of_world(framework, sharding, size, arguments)
                measured.setdefault(framework, {}).setdefault(sharding, {})[str(size)] = own
                print(f"{framework}, {sharding}, {size} processes: {own}", file=sys.stderr, flush=True)
    halves = load_halves(*arguments.frameworks)
    record = {
        "command": ["python", "-m", "scripts.scaling", *sys.argv[1:]],
        "framework": "; ".join(half.environment()["framework"] for half in halves.values()),
        "machine": f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f} after",
        "batch_size": arguments.batch_size,
        "measured": measured,
        "predicted": predicted(json.loads(arguments.counts.read_text())),
        "predicted_from": f"{arguments.counts.name}: v5e:2x2, batch 8192, float32, data; nothing was run",
    }
    if arguments.output is not None:
        files.write_json(arguments.output, record)
    return {"worlds": sum(len(of) for shared in measured.values() for of in shared.values())}


if __name__ == "__main__":
    run_command(sys.modules[__name__])
