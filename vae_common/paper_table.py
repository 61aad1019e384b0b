"""Table 1 of Importance Weighted Autoencoders (Burda, Grosse and Salakhutdinov 2016), one stochastic layer, MNIST.

Eight stages i = 0 to 7 of 3^i passes each with learning rate 1e-3 * 10^(-i/7), rounded as the authors round it. A row
is one objective and number of samples k; VAE and IWAE with k = 1 are the same model, trained once. Each run is a folder
of runs.py that goes on from its last checkpoint; what a stage's model is worth is written beside it once known.

As in the authors' code (github.com/yburda/iwae) the gradient is the sum over the batch, not its mean: that decides
what an eps of 1e-4 does. The VAE's KL is estimated from its draws, as there. Unlike there, Adam's eps is added after
the bias correction, a step uses the moments that hold its own gradient, and every pass has an order of its own.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple

from vae_common import datasets, evaluations, files, resume, runs, trainings
from vae_common.checkpoints import FRAMEWORKS
from vae_common.configs import PRESETS, Config, InputError, LossConfig, OptimizerConfig

KIND = "paper table"
Row = Literal["k1", "vae-k5", "vae-k50", "iwae-k5", "iwae-k50"]
Adam = Literal["paper", "code"]
LAST_STAGE = 7
ADAMS = {
    "paper": OptimizerConfig(beta1=0.9, eps=1e-4),
    "code": OptimizerConfig(beta1=0.99, eps=1e-4, second_moment_start=1.0),
}
PUBLISHED = {
    ("VAE", 1): 86.76, ("VAE", 5): 86.47, ("VAE", 50): 86.35,
    ("IWAE", 1): 86.76, ("IWAE", 5): 85.54, ("IWAE", 50): 84.78,
}  # fmt: skip
"""NLL in nats from 5,000 draws, all eight stages (table 1)."""


class Entry(NamedTuple):
    """One number of the table."""

    objective: str
    samples: int

    @property
    def row(self) -> str:
        """The run that it comes from."""
        return "k1" if self.samples == 1 else f"{self.objective.lower()}-k{self.samples}"


def passes(stage: int) -> int:
    """Passes over the training images until the end of a stage."""
    return sum(3**i for i in range(stage + 1))


def learning_rate(stage: int) -> float:
    """A stage's step size."""
    return round(10 ** (1 - stage / LAST_STAGE), 1) * 1e-4


def config_of(base: Config, row: str, stage: int, adam: str) -> Config:
    """A row's experiment up to the end of a stage."""
    objective, samples = ("iwae" if row.startswith("iwae") else "elbo"), int(row.rpartition("k")[2])
    training = dataclasses.replace(base.training, epochs=passes(stage), learning_rate=learning_rate(stage))
    loss = LossConfig(objective=objective, samples=samples, kl="sampled", reduction="sum")  # type: ignore[arg-type]
    return dataclasses.replace(base, loss=loss, training=training, optimizer=ADAMS[adam])


def train_row(
    half: ModuleType,
    base: Config,
    row: str,
    stages: Sequence[int],
    adam: str,
    dataset: datasets.Dataset,
    folders: Mapping[int, Path],
    draws: int,
    command: Sequence[str],
) -> None:
    """Trains a row's seeds (folder by seed), in one program, from where they stand to the last stage; and evaluates.

    Whatever stands on the disk is gone on with; a stage's checkpoint is at its end, or at every tenth of it.
    """
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    for stage in stages:
        configs = [dataclasses.replace(config_of(base, row, stage, adam), seed=seed) for seed in folders]
        apart = ("epochs", "learning_rate")  # a stage's
        points = [resume.begun(folder, config, apart) for folder, config in zip(folders.values(), configs)]
        epochs = [0 if point is None else point.epoch for point in points]
        common: Any = {"command": command, "checkpoint_every": max(1, 3**stage // 10)}
        if min(epochs) == max(epochs) < passes(stage) and len(configs) > 1:
            trainings.train_seeds(half, configs, dataset, list(folders.values()), resumes=points, **common)
            continue
        for config, folder, point, epoch in zip(configs, folders.values(), points, epochs):
            if epoch < passes(stage):  # one seed, or seeds that were stopped apart
                trainings.train(half, config, dataset, folder, resume=point, **common)
    for folder in folders.values():
        estimate(half, folder, dataset, draws)


def estimate(half: ModuleType, folder: Path, dataset: datasets.Dataset, draws: int) -> dict[str, Any]:
    """The test NLL of a run's last checkpoint, from its file where that is there already."""
    checkpoint = runs.Run(folder).checkpoint()
    runs.require_data(folder, checkpoint.data, dataset)
    known = _estimated(folder, checkpoint.epoch, draws)
    if known:
        return known
    print(f"estimating {folder.name} after {checkpoint.epoch} passes", file=sys.stderr)
    found = evaluations.evaluate(half, checkpoint, dataset, draws)
    runs.Run(folder).write_json(_file(checkpoint.epoch), found)
    return found


def table(folder: Path, seeds: Sequence[int], stage: int, draws: int) -> dict[str, Any]:
    """Every entry with what was published and what each half's finished runs found from as many draws.

    None where a run is missing, or was estimated otherwise.
    """
    entries = []
    for objective, samples in PUBLISHED:
        entry = Entry(objective, samples)
        found: dict[str, Any] = {"objective": objective, "samples": samples, "published": PUBLISHED[entry]}
        for name in FRAMEWORKS:
            places = [run_folder(folder, name, entry.row, seed) for seed in seeds]
            known = [_estimated(place, passes(stage), draws) for place in places]
            nlls = [run["nll_nats"] for run in known if run]
            found[name] = statistics.fmean(nlls) if len(nlls) == len(seeds) else None
            if found[name] is not None:
                found[f"{name}_evaluations"] = known
        both = found["jax"] is not None and found["torch"] is not None
        found["difference"] = found["torch"] - found["jax"] if both else None
        entries.append(found)
    done = {"passes": passes(stage), "of": passes(LAST_STAGE), "draws": draws, "seeds": list(seeds)}
    return done | {"entries": entries}


def run_folder(folder: Path, framework: str, row: str, seed: int) -> Path:
    """Where one run is."""
    return folder / f"{framework}-{row}-seed{seed}"


def markdown(found: Mapping[str, Any]) -> str:
    """The table as Markdown; a missing number is marked so."""
    halves = [f"{said} ({found['passes']} passes)" for said in FRAMEWORKS.values()]
    heads = ["", "published (3,280 passes)", *halves, "PyTorch - JAX"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for entry in found["entries"]:
        numbers = [entry[name] for name in (*FRAMEWORKS, "difference")]
        cells = ["missing" if number is None else f"{number:.2f}" for number in numbers]
        lines.append(
            f"| {entry['objective']}, k = {entry['samples']} | {entry['published']} | " + " | ".join(cells) + " |"
        )
    return "\n".join(lines) + "\n"


def _file(epoch: int) -> str:
    """A run's file with what its model was worth after that many passes."""
    return f"nll-after-{epoch}-passes.json"


def _estimated(folder: Path, epoch: int, draws: int) -> dict[str, Any] | None:
    path = folder / _file(epoch)
    try:
        known = files.read_json(path, "estimate")
        return known if known["draws"] == draws else None
    except (InputError, KeyError, TypeError):  # none, or none that can be read: estimated anew
        return None


def base_config(dataset: datasets.Dataset, **data: Any) -> Config:
    """784-[200, 200, tanh]-50 and back, dynamic binarization, batch 20; `data` are further fields of its DataConfig."""
    preset = PRESETS["iwae"]
    return dataclasses.replace(preset, image_shape=dataset.image_shape, data=dataclasses.replace(preset.data, **data))
