"""Trains ladder VAEs of some depths on MNIST in both halves, evaluates them, and makes a table.

python -m scripts.ladder --layers 5 --epochs 60 --samples 5000 --output results/ladder.json
python -m scripts.ladder --layers 1 2 3 5 --epochs 10 --samples 500 --output results/ladder-depth.json

`--preset ladder`, its schedules stretched to the epochs. What has been trained and evaluated is not done again: a
command that was stopped goes on where it was.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from vae_common import files
from vae_common.backend import Framework, Half, load_halves
from vae_common.cli.command_line import run_command
from vae_common.config import PRESETS, Config
from vae_common.config.checks import require_count
from vae_common.contracts import layer_term
from vae_common.data import datasets
from vae_common.data.splits import Dataset
from vae_common.runs import trainer
from vae_common.runs.evaluation import evaluate
from vae_common.runs.folder import Run

STEPS = 468
"""An epoch's, of MNIST in batches of 128."""


@dataclass(frozen=True)
class Arguments:
    """Ladder VAEs of some depths on MNIST, in both halves."""

    layers: tuple[int, ...] = (5,)
    """Stochastic layers of each model."""
    epochs: int = 60
    samples: int = 5000
    """Draws per image of the importance-weighted likelihood."""
    frameworks: tuple[Framework, ...] = ("jax", "torch")
    seed: int = 0
    runs: Path = Path("runs/ladder")
    """Where the runs are kept."""
    data_dir: str = "data"
    manual_dir: str | None = None
    """Folder that holds MNIST's original files."""
    output: Path | None = None
    """Where the record goes."""


@dataclass(frozen=True)
class Row:
    """One model of one half, on the test images."""

    half: str
    layers: int
    parameters: int
    epochs: int
    negative_elbo_nats: float
    nll_nats: float | None
    nll_standard_error: float | None
    nll_monte_carlo_error: float | None
    samples: int
    evaluated_by: str
    """The half that estimated the likelihood."""
    kl_nats: tuple[float, ...]
    """Of each layer, the top one first."""
    steps_seconds: float
    """Of all training steps, without evaluations; the machine may have done other work."""
    load: str
    """Of the machine when it began."""


def config_of(layers: int, epochs: int, seed: int = 0) -> Config:
    """The preset of that depth, its schedules stretched to the epochs."""
    preset = PRESETS["ladder"]
    depth: Any = {"ladder_layers": layers}
    return replace(
        preset,
        model="ladder_vae",
        seed=seed,
        network=replace(preset.network, **depth),
        loss=replace(preset.loss, kl_warmup=max(1, epochs * STEPS // 10)),
        training=replace(preset.training, epochs=epochs),
        optimizer=replace(preset.optimizer, decay_steps=epochs * STEPS),
    )


def row_of(half: Half, config: Config, folder: Path, dataset: Dataset, samples: int) -> Row:
    """What a finished run is worth; its evaluation is kept beside it."""
    run, kept = Run(folder), folder / f"evaluation-{samples}.json"
    if not kept.exists():
        files.write_json(kept, evaluate(half, run.checkpoint(), dataset, samples))
    found, summary = json.loads(kept.read_text()), json.loads((folder / "summary.json").read_text())
    layers = config.network.ladder_layers
    kls = [summary["test"][layer_term(place)] for place in range(1, layers + 1)] if layers > 1 else []
    return Row(
        half=half.__name__,
        layers=layers,
        parameters=sum(array.size for array in run.checkpoint().weights.values()),
        epochs=config.training.epochs,
        negative_elbo_nats=found["negative_elbo_nats"],
        nll_nats=found["nll_nats"],
        nll_standard_error=found.get("nll_standard_error"),
        nll_monte_carlo_error=found.get("nll_monte_carlo_error"),
        samples=samples,
        evaluated_by=found["framework"],
        kl_nats=tuple(kls) or (summary["test"]["kl_nats"],),
        steps_seconds=sum(record["seconds"] for record in run.checkpoint().history),
        load=summary["environment"]["load"],
    )


def rows(arguments: Arguments, halves: dict[str, Half], dataset: Dataset) -> Iterator[Row]:
    """Trains and evaluates what has not been, half by half."""
    for layers in arguments.layers:
        for name, half in halves.items():
            config = config_of(layers, arguments.epochs, arguments.seed)
            config = replace(config, data=replace(config.data, **_places(arguments)))
            folder = arguments.runs / f"{name}-{layers}-layers-{arguments.epochs}-epochs-seed{arguments.seed}"
            trainer.complete(half, [config], dataset, [folder], command=["python", "-m", "scripts.ladder"])
            yield row_of(half, config, folder, dataset, arguments.samples)


def _places(arguments: Arguments) -> Any:
    return {"data_dir": arguments.data_dir, "manual_dir": arguments.manual_dir}


def main(arguments: Arguments) -> dict[str, Any]:
    files.require_folder(arguments.output, "output")
    for name in ("epochs", "samples"):
        require_count(name, getattr(arguments, name), 1)
    for layers in arguments.layers:
        require_count("layers", layers, 1)
    halves = load_halves(*arguments.frameworks)
    dataset = datasets.load("mnist", progress=True, **_places(arguments))
    found = []
    for row in rows(arguments, halves, dataset):
        found.append(asdict(row))
        print(row, file=sys.stderr, flush=True)
    record = {
        "command": ["python", "-m", "scripts.ladder", *sys.argv[1:]],
        "framework": "; ".join(half.environment()["framework"] for half in halves.values()),
        "data": dataset.fingerprint,
        "rows": found,
    }
    if arguments.output is not None:
        files.write_json(arguments.output, record)
    return {"rows": found}


if __name__ == "__main__":
    run_command(sys.modules[__name__])
