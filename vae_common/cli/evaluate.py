"""Evaluates a run's checkpoint: ELBO, importance-weighted likelihood, rate, distortion, latent structure.

python -m scripts.evaluate --run runs/jax-vae-mnist-seed0 --samples 5000
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vae_common import files
from vae_common.backend import Framework, installed_half, load_halves
from vae_common.cli.experiment import load_dataset, moved
from vae_common.config.checks import require_count
from vae_common.errors import InputError


@dataclass(frozen=True)
class Arguments:
    """Evaluates a run's checkpoint, whichever half wrote it."""

    run: Path | None = None
    """The run's folder."""
    framework: Framework | None = None
    """The half that computes; by default the one that trained, or the other where that is not installed."""
    dataset: str | None = None
    """Where the run's data are now, if they have moved."""
    data_dir: str | None = None
    """Where prepared and decoded sets are now, likewise."""
    samples: int = 5000
    """Posterior samples per image of the importance-weighted likelihood; 0 leaves it out."""
    split: Literal["test", "validation", "train"] = "test"
    output: Path | None = None
    """Where the result goes as JSON; by default evaluation.json in the run's folder."""


def main(arguments: Arguments) -> dict[str, Any]:
    from vae_common.runs import evaluation
    from vae_common.runs.folder import Run, require_data

    if arguments.run is None:
        raise InputError("run: received nothing, expected --run with a run's folder")
    require_count("samples", arguments.samples, 0, evaluation.MOST_SAMPLES)
    output = arguments.output or arguments.run / "evaluation.json"
    files.require_writable(output, "output", evaluation.KIND, ("distortion", "rate_nats"))
    checkpoint = Run(arguments.run).checkpoint()
    dataset = load_dataset(moved(checkpoint.config.data, arguments.dataset, arguments.data_dir))
    require_data(arguments.run, checkpoint.data, dataset)
    if getattr(dataset, arguments.split) is None:
        raise InputError(f"split: received {arguments.split}, but the run held none out; expected test or train")
    framework = arguments.framework or installed_half(checkpoint.framework)
    half = load_halves(framework)[framework]
    found = evaluation.evaluate(half, checkpoint, dataset, arguments.samples, arguments.split)
    files.write_json(output, found)
    return found
