"""How PyTorch's threads should wait: a step beside other programs, spinning and sleeping, and JAX's beside the same.

python -m scripts.waiting --output results/waiting.json

For each number of busy programs the halves' epochs are measured in fresh processes, by turns; the programs compute
without end and are ended afterwards. Run it on a machine that has nothing else to do.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vae_common import files, machine
from vae_common.benchmark.cases import Case
from vae_common.cli.command_line import run_command
from vae_common.config.checks import require_count
from vae_common.errors import require

WAYS = {
    "PyTorch, spinning": ("torch", {"OMP_WAIT_POLICY": "ACTIVE"}),
    "PyTorch, sleeping": ("torch", {"OMP_WAIT_POLICY": "PASSIVE"}),
    "JAX": ("jax", {}),
}


@dataclass(frozen=True)
class Arguments:
    """Measures a step beside busy programs, with threads that spin and that sleep while they wait."""

    busy: tuple[int, ...] = (0, 1, 2, 4)
    """Numbers of other programs."""
    processes: int = 3
    """Fresh ones for each."""
    images: int = 5120
    """Of an epoch."""
    output: Path | None = None
    """Where the record goes as JSON."""


@contextlib.contextmanager
def others(count: int) -> Iterator[None]:
    """So many programs that compute without end."""
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def milliseconds(framework: str, variables: dict[str, str], images: int) -> float:
    """Of a step of an epoch, its draws included, in a process of its own: the median of three epochs."""
    case = Case(kind="epoch", framework=framework, execution="auto", images=images, rounds=3)
    command = [sys.executable, "-m", "vae_common.benchmark.worker", json.dumps({"case": asdict(case)})]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | variables, check=False)
    require(done.returncode == 0, "worker", done.stderr[-200:], "a measurement")
    record = json.loads(done.stdout.splitlines()[-1])
    return 1e3 * float(record["epoch_seconds"]["median"]) / int(record["steps"])


def main(arguments: Arguments) -> dict[str, Any]:
    files.require_folder(arguments.output, "output")
    require_count("processes", arguments.processes, 1, 100)
    rows = []
    for busy in arguments.busy:
        found: dict[str, list[float]] = {name: [] for name in WAYS}
        with others(busy):
            for _ in range(arguments.processes):
                for name, (framework, variables) in WAYS.items():
                    found[name].append(milliseconds(framework, variables, arguments.images))
        medians = {name: round(statistics.median(values), 2) for name, values in found.items()}
        rows.append({"busy": busy, "milliseconds": medians, "each": found})
        print(busy, medians, file=sys.stderr, flush=True)
    record = {
        "command": ["python", "-m", "scripts.waiting", *sys.argv[1:]],
        "machine": machine.facts() | {"cores": str(machine.cores())},
        "rows": rows,
    }
    if arguments.output is not None:
        files.write_json(arguments.output, record)
    return {str(row["busy"]): row["milliseconds"] for row in rows}


if __name__ == "__main__":
    run_command(sys.modules[__name__])
