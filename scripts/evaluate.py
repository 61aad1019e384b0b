"""Evaluates a run's checkpoint: ELBO, importance-weighted likelihood, rate, distortion, latent structure.

python -m scripts.evaluate --run runs/jax-vae-mnist-seed0 --draws 5000
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from scripts.experiment import load_dataset, moved
from scripts.halves import Framework, installed_half, load_halves
from vae_common import evaluations, files, runs
from vae_common.command_line import run
from vae_common.configs import InputError, require_count


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
    draws: int = 5000
    """Posterior draws per image of the importance-weighted likelihood; 0 leaves it out."""
    split: Literal["test", "validation", "train"] = "test"
    output: Path | None = None
    """Where the result goes as JSON; by default evaluation.json in the run's folder."""


def main(arguments: Arguments) -> dict[str, Any]:
    if arguments.run is None:
        raise InputError("run: received nothing, expected --run with a run's folder")
    require_count("draws", arguments.draws, 0, evaluations.MOST_DRAWS)
    output = arguments.output or arguments.run / "evaluation.json"
    files.require_writable(output, "output", evaluations.KIND, ("distortion", "rate_nats"))
    checkpoint = runs.Run(arguments.run).checkpoint()
    dataset = load_dataset(moved(checkpoint.config.data, arguments.dataset, arguments.data_dir))
    runs.require_data(arguments.run, checkpoint.data, dataset)
    if getattr(dataset, arguments.split) is None:
        raise InputError(f"split: received {arguments.split}, but the run held none out; expected test or train")
    framework = arguments.framework or installed_half(checkpoint.framework)
    half = load_halves(framework)[framework]
    found = evaluations.evaluate(half, checkpoint, dataset, arguments.draws, arguments.split)
    files.write_json(output, found)
    return found


if __name__ == "__main__":
    run(Arguments, main)
