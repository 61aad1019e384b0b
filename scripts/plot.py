"""Draws every figure of a finished run, in either half, whoever trained it.

python -m scripts.plot --run runs/jax-vae-mnist-seed0
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from scripts.experiment import Flat, load_dataset, moved
from scripts.halves import Framework, installed_half, load_halves
from vae_common import checkpoints, figures, plotting, runs
from vae_common.command_line import run
from vae_common.configs import InputError


@dataclass(frozen=True)
class Arguments:
    """Draws every figure of a finished run."""

    run: Path | None = None
    """The run's folder."""
    framework: Framework | None = None
    """The half that computes; by default the one that trained, or the other where that is not installed."""
    dataset: str | None = None
    """Where the run's data are now, if they have moved."""
    data_dir: str | None = None
    """Where prepared and decoded sets are now, likewise."""
    output: Path | None = None
    """Where the figures go; by default the run's own figures/."""
    class_names: tuple[str, ...] = ()
    """What the classes are called, in the order of their labels."""
    figures: Annotated[figures.FigureOptions, Flat] = field(default_factory=figures.FigureOptions)


def main(arguments: Arguments) -> dict[str, Any]:
    if arguments.run is None:
        raise InputError("run: received nothing, expected --run with a run's folder")
    finished = runs.Run(arguments.run)
    checkpoint = finished.checkpoint()
    framework = arguments.framework or installed_half(checkpoint.framework)
    half = load_halves(framework)[framework]
    dataset = load_dataset(moved(checkpoint.config.data, arguments.dataset, arguments.data_dir))
    runs.require_data(arguments.run, checkpoint.data, dataset)
    dataset = dataset.named(arguments.class_names)
    arguments.figures.check(dataset)
    output = arguments.output or finished.folder / "figures"
    if output.exists() and not output.is_dir():
        raise InputError(f"output: {output} exists and is no folder; choose another")
    for name in figures.NAMES:
        plotting.require_replaceable(output / f"{name}.png", of_a_run=output == finished.folder / "figures")
    trained = figures.Trained(half, runs.load_model(half, checkpoint), [checkpoint.history], checkpoint.config.seed)
    drawn = figures.draw(
        {checkpoints.FRAMEWORKS[framework]: trained},
        checkpoint.config,
        dataset,
        output,
        arguments.figures,
    )
    return {"framework": framework, "figures": [str(path) for path in drawn.values()]}


if __name__ == "__main__":
    run(Arguments, main)
