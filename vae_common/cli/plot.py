"""Draws every figure of a finished run, in either half, whoever trained it.

python -m scripts.plot --run runs/jax-vae-mnist-seed0
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from vae_common.backend import FRAMEWORKS, Framework, installed_half, load_halves
from vae_common.cli.experiment import Flat, load_dataset, moved
from vae_common.errors import InputError
from vae_common.figures.options import FigureOptions


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
    figures: Annotated[FigureOptions, Flat] = field(default_factory=FigureOptions)


def main(arguments: Arguments) -> dict[str, Any]:
    from vae_common.data.seen import seen_by
    from vae_common.figures import of_models, plotting
    from vae_common.metrics import descriptors
    from vae_common.runs.folder import Run, load_model, require_data

    if arguments.run is None:
        raise InputError("run: received nothing, expected --run with a run's folder")
    checkpoint = Run(arguments.run).checkpoint()
    config = checkpoint.config
    framework = arguments.framework or installed_half(checkpoint.framework)
    half = load_halves(framework)[framework]
    dataset = load_dataset(moved(config.data, arguments.dataset, arguments.data_dir))
    require_data(arguments.run, checkpoint.data, dataset)
    dataset = dataset.named(arguments.class_names).shown
    arguments.figures.check(dataset)
    own = arguments.run / "figures"
    output = arguments.output or own
    if output.exists() and not output.is_dir():
        raise InputError(f"output: {output} exists and is no folder; choose another")
    for name in of_models.FIGURES:
        plotting.require_replaceable(output / f"{name}.png", of_a_run=output == own)
    model, seen = load_model(half, checkpoint), seen_by(config, dataset, "test")
    means = descriptors.flat(half.encode(model, seen.images, seen.labels).mean)
    trained = of_models.TrainedModel(half, model, [checkpoint.history], means, config.seed)
    drawn = of_models.render({FRAMEWORKS[framework]: trained}, config, dataset, seen, output, arguments.figures)
    return {"framework": framework, "figures": [str(path) for path in drawn.values()]}
