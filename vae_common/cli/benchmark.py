"""Measures both halves, each case in a fresh process, and draws it: python -m scripts.benchmark --suite quick"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from vae_common.backend import Framework, installed
from vae_common.benchmark.cases import Case
from vae_common.cli.command_line import called
from vae_common.cli.experiment import ModelName
from vae_common.config.parts import Device, Execution, Precision
from vae_common.files import program_cache


@dataclass(frozen=True)
class Arguments:
    """Measures both halves, each case in a fresh process; the last line carries step_over_floor."""

    suite: Literal["quick", "recipe", "full"] = "quick"
    """quick: under 2 minutes on 2 cores. recipe: whole MNIST-sized epochs beside a common recipe's. full: all."""
    frameworks: tuple[Framework, ...] = field(default_factory=installed)
    executions: tuple[Execution, ...] = ()
    """Of PyTorch; by default eager and compile, and graph on a GPU. JAX runs an epoch as one program."""
    model: ModelName = "vae"
    hidden: tuple[int, ...] = (512,)
    latent_dim: int = 2
    batch_size: int = 128
    precision: Precision = "float32"
    device: Device = "auto"
    dataset: str = "digits"
    """Whose test loss is held against seconds, in the full suite."""
    data_dir: str = "data"
    rounds: int = 5
    """Turns of floor and step in each process, after one that warms up."""
    processes: int = 1
    """Fresh ones for each case; all cases take turns."""
    program_cache: bool = False
    """Finds programs that earlier processes compiled; a start is then not a cold one."""
    baseline: Path | None = None
    """An earlier benchmark.json to compare with, paired."""
    output: Path | None = None
    """The folder for benchmark.json and figures; by default a new one under runs/."""


def main(arguments: Arguments) -> dict[str, Any]:
    from vae_common.benchmark import plots, suites
    from vae_common.runs.folder import new_folder

    base = Case(**{f.name: getattr(arguments, f.name) for f in fields(Case) if hasattr(arguments, f.name)}).checked()
    kept = program_cache() if arguments.program_cache else None
    ordered = suites.plan(
        base,
        arguments.suite,
        frameworks=arguments.frameworks,
        executions=arguments.executions,
        processes=arguments.processes,
        programs=None if kept is None else str(kept),
        baseline=arguments.baseline,
    )
    folder = new_folder(arguments.output, "benchmark")
    result = suites.execute(ordered, folder, [*called("benchmark"), *sys.argv[1:]])
    figures = plots.save_figures(result, folder / "figures")
    summary: dict[str, Any] = result["summary"]
    return summary | {"record": str(folder / "benchmark.json"), "figures": [str(path) for path in figures]}
